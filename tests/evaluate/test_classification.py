"""Thresholds, reports and curves of probabilities against scikit-learn and loops; what is undefined is NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from dist_gat.evaluate.classification import (
    MAX_POINTS,
    NUM_BINS,
    best_threshold,
    classification_details,
    precision_recall,
    reliability,
)  # fmt: skip
from dist_gat.tasks.clicks import calibration_error


def random_clicks(seed: int, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    chance = rng.beta(2, 5, size)
    return (rng.random(size) < chance).astype(np.float64), chance


def test_the_report_and_the_confusion_are_scikit_learns_at_the_threshold_of_validation() -> None:
    valid, (labels, chance) = random_clicks(1), random_clicks(2)
    found = classification_details(labels, chance, valid)
    assert found["threshold_from"] == "valid"
    assert found["threshold"] == best_threshold(*valid) != best_threshold(labels, chance)
    said = chance >= found["threshold"]
    expected = precision_recall_fscore_support(labels, said)
    for label in (0, 1):
        row = found["report"][str(label)]
        assert [row[name] for name in ("precision", "recall", "f1-score", "support")] == pytest.approx(
            [scores[label] for scores in expected]
        )
    assert found["confusion"] == confusion_matrix(labels, said).tolist()
    assert sum(map(sum, found["confusion"])) == len(labels)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_best_threshold_beats_every_other(rows: list[tuple[int, int]]) -> None:
    labels, predictions = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    found = best_threshold(labels, predictions / 4)
    if not labels.any():
        assert found is None
        return
    scores = {t: f1_score(labels, predictions / 4 >= t, zero_division=0) for t in np.unique(predictions / 4)}
    assert found in scores
    assert scores[found] == pytest.approx(max(scores.values()))


def test_the_reliability_curve_is_scikit_learns_and_adds_up_to_the_calibration_error() -> None:
    labels, chance = random_clicks(3)
    found = reliability(labels, chance)
    ones, means = calibration_curve(labels, chance, n_bins=NUM_BINS)
    assert [row["share_of_ones"] for row in found] == pytest.approx(ones.tolist())
    assert [row["mean_prediction"] for row in found] == pytest.approx(means.tolist())
    gaps = sum(row["num_pairs"] * abs(row["share_of_ones"] - row["mean_prediction"]) for row in found)
    assert gaps / len(labels) == pytest.approx(calibration_error(labels, chance))


@pytest.mark.parametrize("size", [3, 400, 5000])
def test_the_curve_of_precision_and_recall_is_short_and_true(size: int) -> None:
    labels, chance = random_clicks(4, size)
    labels[0] = 1
    points = precision_recall(labels, chance)
    assert 0 < len(points) <= MAX_POINTS
    for point in points:
        said = chance >= point["threshold"]
        assert point["recall"] == pytest.approx(labels[said].sum() / labels.sum())
        assert point["precision"] == pytest.approx(labels[said].mean())
    recalls = [point["recall"] for point in points]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[0] == 1.0
    assert points[-1]["threshold"] == chance.max()


def test_histograms_are_of_each_label() -> None:
    labels, chance = random_clicks(5)
    found = classification_details(labels, chance, None)["histograms"]
    assert found["1"]["num"] == sum(found["1"]["counts"]) == labels.sum()
    assert found["0"]["counts"] == np.histogram(chance[labels == 0], 100, (0, 1))[0].tolist()


def test_labels_of_one_kind_leave_what_they_leave_undefined() -> None:
    labels, chance = np.zeros(4), np.array([0.1, 0.2, 0.2, 0.9])
    found = classification_details(labels, chance, (labels, chance))
    assert (found["threshold"], found["threshold_from"]) == (0.5, "default")
    assert math.isnan(found["report"]["1"]["recall"])
    assert found["report"]["1"]["precision"] == 0
    assert found["confusion"] == [[3, 1], [0, 0]]
    assert found["precision_recall"] == []
    assert math.isnan(found["histograms"]["1"]["mean"])
