"""What the sections of a report say of made-up runs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dist_gat.pages.cost_section import cost_section, training_seconds
from dist_gat.pages.details_section import details_section
from dist_gat.pages.learning_section import learning_section
from dist_gat.pages.quality_section import other_models, verdict
from dist_gat.pages.slices_section import slices_section


@pytest.mark.parametrize(
    ("own", "spread", "others", "higher", "words"),
    [
        (0.5, 0.01, {"EASE": 0.4, "ALS": 0.3}, True, "Better than all others: EASE"),
        (0.5, 0.01, {"EASE": 0.6}, True, "Not the best: EASE, the best of the other models, has 0.600."),
        (0.5, 0.06, {"EASE": 0.6}, True, "About as good as others"),
        (0.9, 0.01, {"Overall mean": 1.1, "User and item biases": 0.8}, False, "Not the best: User and item biases"),
        (0.9, 0.01, {"Overall mean": 1.1}, False, "Better than all others"),
        (0.5, 0.01, {}, True, ""),
        (None, 0.0, {"EASE": 0.6}, True, ""),
    ],
)
def test_the_verdict_on_quality(own: float | None, spread: float, others: Any, higher: bool, words: str) -> None:
    found = verdict(own, spread, others, higher)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_other_models_are_of_the_same_split_and_not_the_run_itself() -> None:
    evaluation = {"baselines": {"popularity": {"test": {"auc": 0.1}}, "ease": {"valid": {"auc": 0.2}}}}
    comparison = {"split": "test", "models": {"recipe": {"metrics": {"auc": 0.3}}, "mine": {"metrics": {"auc": 0.4}}}}
    assert other_models(evaluation, comparison, "test", "auc") == {"Most popular items": 0.1, "mine": 0.4}
    assert other_models(evaluation, comparison, "valid", "auc") == {"EASE": 0.2}
    assert other_models(None, [], "test", "auc") == {}


@pytest.mark.parametrize(
    ("values", "higher", "words"),
    [
        ([0.1, 0.2, 0.3], True, "The last validation was the best one"),
        ([0.1, 0.3, 0.2, 0.2], True, "No: it was best at epoch 2, and the last 2 validations were no better."),
        ([0.1, 0.3, 0.2], False, "No: it was best at epoch 1"),
        ([0.1], True, "There was one validation only"),
        ([], True, "There was no validation"),
    ],
)
def test_the_verdict_on_learning_is_the_metrics_direction(values: list[float], higher: bool, words: str) -> None:
    curves = {"valid/auc": [(10 * n, value) for n, value in enumerate(values, start=1)]} if values else {}
    found = learning_section(curves, "auc", higher, 10.0)
    assert found["verdict"].startswith(words)
    if values:
        assert "best: epoch" in found["charts"][0][1]


def slice_row(value: float | None, num_pairs: int, degree: int) -> dict[str, Any]:
    return {
        "num_nodes": 5, "min_degree": min(degree, 1), "max_degree": degree, "num_pairs": num_pairs, "num_users": 1,
        "num_items": 1, "auc": value,
    }  # fmt: skip


def test_slices_mark_what_is_cold_and_name_the_worst() -> None:
    users = {"cold": slice_row(0.6, 10, 0), "q1": slice_row(0.9, 1000, 3), "q2": slice_row(None, 7, 4)}
    evaluation = {"test": {"auc": 0.85}, "slices": {"test": {"users": users, "items": 3}}}
    found = slices_section(evaluation, "test", "auc", higher=True)
    assert found["verdict"] == "Worst for “New users”: AUC 0.600, where all have 0.850."
    ((title, chart),) = found["charts"]
    assert title == "Users by activity: AUC"
    for words in (
        'class="bar cold"',
        "none in training · 10 pairs",
        "1–3 · 1,000 pairs",
        "undefined",
        "all: 0.850",
    ):
        assert words in chart
    assert slices_section(evaluation, "test", "auc", higher=False)["verdict"].startswith("Worst for “Least active")
    assert slices_section(None, "test", "auc", higher=True) == {"charts": [], "verdict": "", "beyond": []}


def test_a_ranking_slice_that_nobody_is_in_is_undefined_and_not_zero() -> None:
    row = {"num_nodes": 5, "min_degree": 0, "max_degree": 0, "num_users": 0.0, "recall@20": 0.0}
    evaluation = {"test": {"recall@20": 0.5}, "slices": {"test": {"items": {"cold": row}}}}
    found = slices_section(evaluation, "test", "ndcg@20", higher=True)
    assert "undefined" in found["charts"][0][1]
    assert found["verdict"] == ""


def test_residuals_have_pictures_and_say_what_they_leave_out() -> None:
    histogram = {"low": -1.0, "high": 1.0, "counts": [1, 2], "below": 3, "above": 0, "num": 6}
    rows = [{"mean_prediction": 1.0, "mean_label": 1.5, "residual_std": 0.5, "num_pairs": 6}]
    found = details_section({"kind": "residuals", "by_prediction": rows, "histograms": {"residuals": histogram}})
    assert [title for title, _, _ in found["charts"]] == ["Are the predictions true?", "How far off is it?"]
    assert "3 pairs lie outside" in found["charts"][1][1]
    assert "whisker" in found["charts"][0][2]


@pytest.mark.parametrize(
    "details",
    [
        {}, {"kind": 3}, {"kind": "residuals", "by_prediction": {}}, {"kind": "classification", "confusion": [1, 2]},
        {"kind": "classification", "confusion": [[1, 2], [3, 4]], "threshold": None},
        {"kind": "residuals", "histograms": {"residuals": {"low": 1, "high": 1, "num": 1, "counts": ["a"]}}},
    ],
)  # fmt: skip
def test_details_of_another_layout_are_left_out(details: dict[str, Any]) -> None:
    assert details_section(details) == {"charts": [], "confusion": None}


def test_the_cost_adds_up_attempts_and_names_the_bottleneck() -> None:
    events = [
        {"event": "start", "seconds": 0.5, "workers": 2}, {"event": "step", "seconds": 100.0},
        {"event": "start", "seconds": 0.1, "workers": 4}, {"event": "valid", "took": 7.0, "seconds": 30.0},
        {"event": "done", "seconds": 50.0, "peak_memory_bytes": 2_500_000_000},
    ]  # fmt: skip
    assert training_seconds(events) == 150.0
    curves = {
        "share/stall": [(1, 0.5), (2, 0.7)],
        "share/compute": [(1, 0.3)],
        "share/sample": [(1, math.nan), (2, 0.9)],
    }
    found = cost_section(curves, events, None)
    assert dict(found["rows"]) == {
        "Time of training": "2 min", "of which validations": "7 s", "Peak memory, all workers": "2.50 GB",
        "Workers": "4",
    }  # fmt: skip
    assert found["verdict"].startswith("The bottleneck: waiting for the next batch, 60% of a step. The model waits")
    assert "in the background" in found["shares"]
    assert cost_section({}, [], None) == {"rows": [], "verdict": "", "shares": None, "profiled": ""}
