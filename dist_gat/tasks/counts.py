"""Counts: plays, visits, purchases; the mean of a pair is exp(value).

Shape legend: B pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import expit, xlogy
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.config.task_sections import CountTask
from dist_gat.evaluate.classification import LabelledPredictions
from dist_gat.evaluate.residuals import residual_details

# of a value: beyond it the mean is larger than any count
MAX_VALUE = 30.0
# 5 % of the pairs
FIRST_INFLATION = -3.0


class CountLikelihood(nn.Module):
    """Poisson, or negative binomial with one learned dispersion. Values count from the log of the mean label.

    Zero-inflated, a learned share π of the pairs is 0 whatever its mean (Lambert, Technometrics 1992).
    """

    expected = "a count of 0 or more"

    def __init__(self, config: CountTask, mean: float) -> None:
        super().__init__()
        self.offset = float(np.log(max(mean, 1e-8)))
        self.loss_name = config.likelihood
        self.log_shape: nn.Parameter | None = None
        if config.likelihood == "negative_binomial":
            self.log_shape = nn.Parameter(torch.zeros(()))
        # log-odds of π
        self.inflation = nn.Parameter(torch.full((), FIRST_INFLATION)) if config.zero_inflated else None

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        """-log p(label) without what does not depend on the parameters.

        With f the likelihood without inflation: p(0) = π + (1 - π) f(0), and p(y) = (1 - π) f(y) above.
        """
        plain_B = self._plain_loss(value_B, label_B)
        if self.inflation is None:
            return plain_B
        inflated, not_inflated = functional.logsigmoid(self.inflation), functional.logsigmoid(-self.inflation)
        # what plain_B leaves out is 0 for a label of 0
        zero_B = torch.logaddexp(inflated.expand_as(plain_B), not_inflated - plain_B)
        return torch.where(label_B == 0, -zero_B, plain_B - not_inflated)

    def _plain_loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        """Poisson: exp(x) - y x. Negative binomial with mean exp(x) and variance mean + mean² / r (Cameron and Trivedi
        1986, NB2): -lgamma(y + r) + lgamma(r) - r log r - y x + (y + r) log(r + exp(x)).
        """
        log_mean_B = (value_B + self.offset).clamp(max=MAX_VALUE)
        if self.log_shape is None:
            return functional.poisson_nll_loss(log_mean_B, label_B, log_input=True, reduction="none")
        shape = self.log_shape.exp()
        total_B = torch.logaddexp(self.log_shape, log_mean_B)
        return (
            torch.lgamma(shape) - torch.lgamma(label_B + shape) - shape * self.log_shape
            - label_B * log_mean_B + (label_B + shape) * total_B
        )  # fmt: skip

    def predict(self, values: np.ndarray) -> np.ndarray:
        means = np.exp(np.minimum(values + self.offset, MAX_VALUE))
        return means if self.inflation is None else means * expit(-float(self.inflation.detach()))

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> dict[str, float]:
        """deviance: the mean Poisson deviance 2 (y log(y / p) - y + p), as scikit-learn's mean_poisson_deviance."""
        means = np.maximum(predictions, 1e-12)
        deviance = 2 * np.mean(xlogy(labels, labels / means) - labels + means)
        logs = np.log1p(labels) - np.log1p(predictions)
        return {
            "deviance": float(deviance),
            "rmse_log": float(np.sqrt(np.mean(logs**2))),
            "mae": float(np.mean(np.abs(labels - predictions))),
        }

    def details(self, labels: np.ndarray, predictions: np.ndarray, valid: LabelledPredictions | None) -> dict[str, Any]:
        return residual_details(labels, predictions)

    def are_labels(self, labels: np.ndarray) -> np.ndarray:
        return labels >= 0
