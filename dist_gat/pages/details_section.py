"""Where is it wrong? The task's own pictures, from the details of an evaluation."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from dist_gat.pages.chart import Curve, line_chart
from dist_gat.pages.figures import three_digits
from dist_gat.pages.histogram_chart import histogram_chart
from dist_gat.pages.run_files import branch, number_in, rows_of, text_in
from dist_gat.pages.scatter_chart import Dot, scatter_chart

Charts = list[tuple[str, str, Markup]]


def details_section(details: dict[str, Any]) -> dict[str, Any]:
    """`charts`: title, explanation, picture; `confusion`: None where there are no classes."""
    kind = text_in(details, "kind")
    charts = {"classification": classification_charts, "residuals": residual_charts}.get(kind)
    return {
        "charts": charts(details) if charts else [],
        "confusion": confusion(details) if kind == "classification" else None,
    }


def confusion(details: dict[str, Any]) -> dict[str, Any] | None:
    """Rows of a label: how many pairs were predicted as 0 and as 1, their shares of the row; and the scores."""
    counts = details.get("confusion")
    threshold = number_in(details, "threshold")
    if threshold is None or not isinstance(counts, list) or not all(isinstance(row, list) for row in counts):
        return None
    rows = []
    for label, row in enumerate(counts):
        report = branch(details, "report", str(label))
        total = sum(row) or 1
        scores = [number_in(report, name) for name in ("precision", "recall", "f1-score")]
        cells = [
            {"count": count, "share": count / total, "kind": "hit" if said == label else "miss"}
            for said, count in enumerate(row)
        ]
        rows.append({"label": label, "cells": cells, "scores": scores, "total": sum(row)})
    origin = "where F1 was best on validation" if text_in(details, "threshold_from") == "valid" else "by default"
    return {"rows": rows, "threshold": f"{three_digits(threshold)}, {origin}"}


def classification_charts(details: dict[str, Any]) -> Charts:
    found: Charts = []
    dots = _dots(rows_of(details, "reliability"), "mean_prediction", "share_of_ones")
    if dots:
        found.append((
            "Are the probabilities true?",
            "Each dot is a bin of predictions, the larger the more pairs. On the dashed line they are true; below it "
            "they promise too much.",
            scatter_chart(dots, "mean prediction", "share of 1s", (0.0, 1.0)),
        ))  # fmt: skip
    curve: Curve = [
        (recall, precision)
        for row in rows_of(details, "precision_recall")
        if (recall := number_in(row, "recall")) is not None
        and (precision := number_in(row, "precision")) is not None
    ]  # fmt: skip
    if curve:
        found.append((
            "Precision and recall",
            "From right to left the threshold rises: fewer of the 1s are found, and more of what is found is a 1.",
            line_chart({"precision by recall": curve}, x_name="recall", y_name="precision"),
        ))  # fmt: skip
    histograms = branch(details, "histograms")
    series = {f"label {name}": _counts(histograms, name) for name in histograms}
    if any(series.values()):
        found.append((
            "What was predicted", "The further apart the two, the better the model tells them.",
            histogram_chart(series, (0.0, 1.0), "prediction"),
        ))  # fmt: skip
    return found


def residual_charts(details: dict[str, Any]) -> Charts:
    found: Charts = []
    dots = _dots(rows_of(details, "by_prediction"), "mean_prediction", "mean_label", "residual_std")
    if dots:
        found.append((
            "Are the predictions true?",
            "Each dot is a bin of predictions. On the dashed line they are true on average; a whisker, where there is "
            "one, is the standard deviation of what is left over.",
            scatter_chart(dots, "mean prediction", "mean label"),
        ))  # fmt: skip
    for name, title, text in (
        ("residuals", "How far off is it?", "Label less prediction: above 0 the prediction was too low."),
        ("predictions", "What was predicted", "In the unit of the labels."),
    ):
        histogram = branch(details, "histograms", name)
        low, high = number_in(histogram, "low"), number_in(histogram, "high")
        if low is not None and high is not None and low < high and number_in(histogram, "num"):
            outside = sum(int(number_in(histogram, end) or 0) for end in ("below", "above"))
            beyond = f" {outside:,} pairs lie outside of the picture." if outside else ""
            counts = _counts(branch(details, "histograms"), name)
            found.append((title, text + beyond, histogram_chart({name: counts}, (low, high), name.rstrip("s"))))
    return found


def _dots(rows: list[dict[str, Any]], x: str, y: str, spread: str = "") -> list[Dot]:
    return [
        Dot(at, value, number_in(row, "num_pairs") or 0.0, number_in(row, spread) or 0.0)
        for row in rows
        if (at := number_in(row, x)) is not None and (value := number_in(row, y)) is not None
    ]


def _counts(histograms: dict[str, Any], name: str) -> list[float]:
    counts = branch(histograms, name).get("counts")
    known = isinstance(counts, list) and all(isinstance(count, int | float) and count >= 0 for count in counts)
    return list(counts) if known and counts else []
