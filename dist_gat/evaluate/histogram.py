"""Histograms in bins of equal width, as JSON data."""

from __future__ import annotations

from typing import Any

import numpy as np

# of all values lies so much outside of a histogram, at each end: a few far ones would leave one bar of the rest
TAIL = 0.005


def histogram(values: np.ndarray, num_bins: int, span: tuple[float, float] | None = None) -> dict[str, Any]:
    """How many of float64 [m] values lie in each bin of `span`, by default all values but the last 0.5% at each end.

    `low`, `high`: the span; `counts`: [num_bins], a value on an edge counts to the right, that on the last edge to the
    left; `below`, `above`: how many lie outside; `min`, `max`, `mean`, `std`, `num`: of all values, NaN where there are
    none.
    """
    if not len(values):
        low, high = span or (0.0, 1.0)
        nothing = dict.fromkeys(("min", "max", "mean", "std"), float("nan"))
        return {"low": low, "high": high, "counts": [0] * num_bins, "below": 0, "above": 0, "num": 0, **nothing}
    low, high = span or _span(values)
    counts, _ = np.histogram(values, num_bins, (low, high))
    return {
        "low": low, "high": high, "counts": counts.tolist(), "below": int((values < low).sum()),
        "above": int((values > high).sum()), "num": len(values), "min": float(values.min()),
        "max": float(values.max()), "mean": float(values.mean()), "std": float(values.std()),
    }  # fmt: skip


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(edge) for edge in np.quantile(values, (TAIL, 1 - TAIL)))
    # bins need a width, also where all values are one
    room = 0.0 if high > low else max(abs(low) * 1e-3, 1e-3)
    return low - room, high + room
