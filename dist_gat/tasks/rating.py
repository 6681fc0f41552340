"""Ratings: labels on a scale, predicted with squared error or Huber's loss.

Shape legend: B pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.evaluate.classification import LabelledPredictions
from dist_gat.evaluate.residuals import residual_details


class RatingLikelihood(nn.Module):
    """The prediction is the mean of the training labels plus the value."""

    loss_name = "squared"
    expected = "a number"

    def __init__(self, mean: float, smallest: float, largest: float, clip: bool = True) -> None:
        super().__init__()
        self.mean, self.smallest, self.largest, self.clip = mean, smallest, largest, clip

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        """(label - prediction)²"""
        return functional.mse_loss(value_B, label_B - self.mean, reduction="none")

    def predict(self, values: np.ndarray) -> np.ndarray:
        predictions = values + self.mean
        return np.clip(predictions, self.smallest, self.largest) if self.clip else predictions

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> dict[str, float]:
        errors = predictions - labels
        return {"rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.mean(np.abs(errors)))}

    def details(self, labels: np.ndarray, predictions: np.ndarray, valid: LabelledPredictions | None) -> dict[str, Any]:
        return residual_details(labels, predictions)

    def are_labels(self, labels: np.ndarray) -> np.ndarray:
        return np.isfinite(labels)


class HuberLikelihood(RatingLikelihood):
    """The same with Huber's loss, which is linear from an error of `delta` on (Huber 1964)."""

    loss_name = "huber"

    def __init__(self, mean: float, smallest: float, largest: float, clip: bool, delta: float) -> None:
        super().__init__(mean, smallest, largest, clip)
        self.delta = delta

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        return functional.huber_loss(value_B, label_B - self.mean, reduction="none", delta=self.delta)
