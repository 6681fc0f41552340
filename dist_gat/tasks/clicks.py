"""Clicks: labels of 0 and 1, predicted as probabilities.

Shape legend: B pairs, m pairs of a split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.evaluate.classification import NUM_BINS, LabelledPredictions, bin_of, classification_details

# a probability of 0 or 1 would make the log-loss of one wrong prediction infinite
SMALLEST = 1e-7


class ClickLikelihood(nn.Module):
    """P(1) = sigmoid(value), trained with cross-entropy."""

    loss_name = "cross_entropy"
    expected = "0 or 1"

    def loss(self, value_B: Tensor, label_B: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(value_B, label_B, reduction="none")

    def predict(self, values: np.ndarray) -> np.ndarray:
        return expit(values)

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> dict[str, float]:
        return {
            "auc": roc_auc_score(labels, predictions) if 0 < labels.mean() < 1 else float("nan"),
            "log_loss": log_loss(labels, predictions.clip(SMALLEST, 1 - SMALLEST), labels=[0, 1]),
            "auc_by_user": auc_by_source(labels, predictions, sources),
            "average_precision": average_precision_score(labels, predictions) if labels.any() else float("nan"),
            "brier": brier_score_loss(labels, predictions, pos_label=1) if len(labels) else float("nan"),
            "calibration_error": calibration_error(labels, predictions),
        }

    def details(self, labels: np.ndarray, predictions: np.ndarray, valid: LabelledPredictions | None) -> dict[str, Any]:
        return classification_details(labels, predictions, valid)

    def are_labels(self, labels: np.ndarray) -> np.ndarray:
        return (labels == 0) | (labels == 1)


def auc_by_source(labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> float:
    """The mean AUC of the sources that have both labels; NaN where none has. By ranks, ties count half."""
    order = np.lexsort((predictions, sources))
    source, label, value = sources[order], labels[order], predictions[order]
    starts = np.flatnonzero(np.append(True, source[1:] != source[:-1])[: len(source)])
    # of equal predictions of a source all have their mean rank
    is_new = np.append(True, (source[1:] != source[:-1]) | (value[1:] != value[:-1]))[: len(source)]
    group = np.cumsum(is_new) - 1
    place = np.arange(len(source), dtype=np.float64)
    mean_place = (np.bincount(group, place) / np.bincount(group))[group] if len(source) else place
    positives, counts = np.add.reduceat(label, starts), np.diff(np.append(starts, len(source)))
    ranks = np.add.reduceat(mean_place * label, starts) - positives * starts + positives
    both = (positives > 0) & (positives < counts)
    area = (ranks - positives * (positives + 1) / 2)[both] / (positives * (counts - positives))[both]
    return float(area.mean()) if len(area) else float("nan")


def calibration_error(labels: np.ndarray, predictions: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error: over bins of equal width, the mean of |mean label - mean prediction|, each bin
    weighed by its pairs (Naeini, Cooper and Hauskrecht, AAAI 2015)."""
    gaps = np.bincount(bin_of(predictions, num_bins), labels - predictions, num_bins)
    return float(np.abs(gaps).sum() / max(len(labels), 1))
