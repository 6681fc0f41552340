"""Ratings: labels on a scale, predicted with squared error or Huber's loss.

Shape legend: B pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.config.task_sections import RatingTask
from dist_gat.evaluate.classification import LabelledPredictions
from dist_gat.evaluate.residuals import residual_details


class RatingLikelihood(nn.Module):
    """The prediction is the mean of the training labels plus the value."""

    def __init__(self, config: RatingTask, mean: float, smallest: float, largest: float) -> None:
        super().__init__()
        self.config, self.mean, self.smallest, self.largest = config, mean, smallest, largest
        self.loss_name = config.loss

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        """(label - prediction)², or Huber's loss, which is linear beyond huber_delta (Huber 1964)."""
        target_B = label_B - self.mean
        if self.config.loss == "squared":
            return functional.mse_loss(value_B, target_B, reduction="none")
        return functional.huber_loss(value_B, target_B, reduction="none", delta=self.config.huber_delta)

    def predict(self, values: np.ndarray) -> np.ndarray:
        predictions = values + self.mean
        return np.clip(predictions, self.smallest, self.largest) if self.config.clip else predictions

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> dict[str, float]:
        errors = predictions - labels
        return {"rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.mean(np.abs(errors)))}

    def details(self, labels: np.ndarray, predictions: np.ndarray, valid: LabelledPredictions | None) -> dict[str, Any]:
        return residual_details(labels, predictions)

    def check(self, smallest: float, largest: float) -> str | None:
        if smallest == largest:
            return f"all ratings are {smallest:g}: there is nothing to predict; is data.columns.weight right?"
        return None
