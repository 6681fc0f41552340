"""Labels of 0 and 1 beside predicted probabilities: what a person looks at, as JSON data.

A metric that is undefined, such as the precision of a label that was never predicted, is NaN.

Shape legend: m pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import classification_report, confusion_matrix, precision_recall_curve

from dist_gat.evaluate.histogram import histogram

# of the reliability curve and of the calibration error; of the histograms; of the curve of precision and recall
NUM_BINS, HISTOGRAM_BINS, MAX_POINTS = 15, 100, 200
DEFAULT_THRESHOLD = 0.5

# labels and predictions, float64 [m] each
LabelledPredictions = tuple[np.ndarray, np.ndarray]


def classification_details(
    labels: np.ndarray, predictions: np.ndarray, valid: LabelledPredictions | None
) -> dict[str, Any]:
    """Of float64 [m] labels and probabilities. `valid`: those of the validation pairs, which choose the threshold.

    `threshold`, and from it on a prediction counts as 1; `threshold_from`: `valid`, or `default` where validation has
    no 1. `report`: scikit-learn's precision, recall, F1 and support of each label. `confusion`: rows are labels,
    columns predictions, 0 first. `reliability`, `precision_recall`: see the functions of these names. `histograms`:
    of the predictions, by label.
    """
    threshold = best_threshold(*valid) if valid is not None else None
    chosen = DEFAULT_THRESHOLD if threshold is None else threshold
    said = (predictions >= chosen).astype(np.int64)
    truth = labels.astype(np.int64)
    report = classification_report(truth, said, labels=[0, 1], output_dict=True, zero_division=np.nan)
    by_label = {str(label): predictions[truth == label] for label in (0, 1)}
    return {
        "kind": "classification",
        "threshold": chosen,
        "threshold_from": "default" if threshold is None else "valid",
        "report": report,
        "confusion": confusion_matrix(truth, said, labels=[0, 1]).tolist(),
        "reliability": reliability(labels, predictions),
        "precision_recall": precision_recall(labels, predictions),
        "histograms": {name: histogram(values, HISTOGRAM_BINS, (0.0, 1.0)) for name, values in by_label.items()},
    }


def best_threshold(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """The prediction with the best F1 of label 1, the smallest of several; None where no label is 1."""
    if not labels.any():
        return None
    precision, recall, thresholds = precision_recall_curve(labels, predictions)
    # a sum of 0 means no hits, so F1 is 0
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return float(thresholds[np.argmax(f1[:-1])])


def bin_of(predictions: np.ndarray, num_bins: int) -> np.ndarray:
    """int64 [m]: in which of `num_bins` bins of equal width a probability lies, 1 in the last."""
    return np.minimum((predictions * num_bins).astype(np.int64), num_bins - 1)


def reliability(labels: np.ndarray, predictions: np.ndarray) -> list[dict[str, float]]:
    """For each of `NUM_BINS` bins with a pair: `mean_prediction`, `share_of_ones` and `num_pairs`, the lowest first."""
    place = bin_of(predictions, NUM_BINS)
    counts = np.bincount(place, minlength=NUM_BINS)
    means, ones = (np.bincount(place, values, NUM_BINS) / np.maximum(counts, 1) for values in (predictions, labels))
    return [
        {"mean_prediction": float(means[n]), "share_of_ones": float(ones[n]), "num_pairs": int(counts[n])}
        for n in np.flatnonzero(counts)
    ]


def precision_recall(labels: np.ndarray, predictions: np.ndarray) -> list[dict[str, float]]:
    """`recall`, `precision` and `threshold` at `MAX_POINTS` thresholds at most, about evenly spaced by recall.

    Recall falls. Empty where no label is 1.
    """
    if not labels.any():
        return []
    precision, recall, thresholds = precision_recall_curve(labels, predictions)
    # scikit-learn's last point has no threshold
    last = len(thresholds) - 1
    levels = np.searchsorted(-recall[: last + 1], -np.linspace(1.0, recall[last], MAX_POINTS - 1))
    return [
        {"recall": float(recall[n]), "precision": float(precision[n]), "threshold": float(thresholds[n])}
        for n in np.unique(np.append(levels, last))
    ]
