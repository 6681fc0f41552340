"""Numbers beside their predictions: where and how far a model is off, as JSON data. A residual is label - prediction.

Shape legend: m pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dist_gat.evaluate.histogram import histogram

NUM_BINS, HISTOGRAM_BINS = 20, 40


def residual_details(labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Of float64 [m] labels and predictions in the unit of the labels.

    `by_prediction`: see the function of this name. `histograms`: of the residuals and of the predictions.
    """
    return {
        "kind": "residuals",
        "by_prediction": by_prediction(labels, predictions),
        "histograms": {
            "residuals": histogram(labels - predictions, HISTOGRAM_BINS),
            "predictions": histogram(predictions, HISTOGRAM_BINS),
        },
    }


def by_prediction(labels: np.ndarray, predictions: np.ndarray) -> list[dict[str, float]]:
    """At most `NUM_BINS` bins with about as many pairs each, the lowest predictions first; equal ones share a bin.

    Each has `mean_prediction`, `mean_label`, `residual_std`, the standard deviation of its residuals, and `num_pairs`.
    """
    if not len(labels):
        return []
    edges = np.unique(np.quantile(predictions, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, predictions, side="right")
    return [
        {
            "mean_prediction": float(predictions[mine].mean()),
            "mean_label": float(labels[mine].mean()),
            "residual_std": float((labels - predictions)[mine].std()),
            "num_pairs": int(mine.sum()),
        }
        for mine in (place == number for number in np.unique(place))
    ]
