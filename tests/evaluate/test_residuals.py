"""Residuals by predicted value, and histograms, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from dist_gat.evaluate.histogram import histogram
from dist_gat.evaluate.residuals import NUM_BINS, by_prediction, residual_details


def test_bins_of_predictions_share_the_pairs_and_keep_their_means() -> None:
    rng = np.random.default_rng(0)
    predictions = rng.lognormal(size=1000)
    labels = rng.poisson(predictions).astype(np.float64)
    rows = by_prediction(labels, predictions)
    assert [row["num_pairs"] for row in rows] == [50] * NUM_BINS
    order = np.argsort(predictions)
    for row, mine in zip(rows, order.reshape(NUM_BINS, 50), strict=True):
        assert row["mean_prediction"] == pytest.approx(predictions[mine].mean())
        assert row["mean_label"] == pytest.approx(labels[mine].mean())
        assert row["residual_std"] == pytest.approx((labels[mine] - predictions[mine]).std())


def test_equal_predictions_share_a_bin() -> None:
    predictions = np.array([1.0] * 70 + [2.0] * 23 + [5.0] * 7)
    assert [row["num_pairs"] for row in by_prediction(predictions, predictions)] == [70, 23, 7]
    assert [row["num_pairs"] for row in by_prediction(np.ones(3), np.ones(3))] == [3]
    assert by_prediction(np.ones(0), np.ones(0)) == []


def test_a_histogram_counts_all_values_and_says_what_lies_outside() -> None:
    values = np.append(np.linspace(0, 1, 1000), [50.0, -1e6])
    found = histogram(values, 10)
    assert 0 <= found["low"] < found["high"] <= 1
    assert sum(found["counts"]) + found["below"] + found["above"] == found["num"] == len(values)
    assert found["below"] > 0
    assert (found["min"], found["max"]) == (-1e6, 50.0)
    assert (found["mean"], found["std"]) == pytest.approx((values.mean(), values.std()))
    assert histogram(values, 10, (0.0, 1.0))["counts"] == np.histogram(values, 10, (0, 1))[0].tolist()


@pytest.mark.parametrize("value", [0.0, -3.0, 1e12])
def test_a_histogram_of_one_value_has_a_width(value: float) -> None:
    found = histogram(np.full(5, value), 4)
    assert found["low"] < value < found["high"]
    assert sum(found["counts"]) == 5


def test_the_details_are_of_residuals_and_predictions() -> None:
    labels, predictions = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    found = residual_details(labels, predictions)
    assert found["kind"] == "residuals"
    assert found["histograms"]["residuals"]["mean"] == pytest.approx((labels - predictions).mean())
    assert found["histograms"]["predictions"]["max"] == 3.0
