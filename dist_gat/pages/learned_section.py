"""What attention learned of edges: curves over time, rank in the history, and weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from dist_gat.nn.learned_terms import LearnedCurve
from dist_gat.pages.chart import line_chart

# of each term: the title, the name of the x axis, and ticks
AGES = {"1 s": 1, "1 min": 60, "1 h": 3600, "1 day": 86400, "1 year": 3.15e7}
TERMS = {
    "age": ("Time before the newest edge", "before", {name: float(seconds) for name, seconds in AGES.items()}),
    "rank": ("Rank in the history", "newer edges", {f"{n:,}": float(n) for n in (0, 1, 3, 10, 30, 100, 300, 1000)}),
    "weight": ("Weight or rating", "standard deviations from the mean", {}),
}


def learned_charts(curves: Sequence[LearnedCurve]) -> list[tuple[str, Markup]]:
    """Titles and pictures, by term: a curve for each layer and edge type, as a share of its largest value."""
    charts = []
    for term, (title, x_name, ticks) in TERMS.items():
        shown = [curve for curve in curves if curve.term == term]
        if not shown:
            continue
        several = len({curve.layer for curve in shown}) > 1
        lines = {
            f"{curve.edge_type}{f', layer {curve.layer}' if several else ''}".replace("_", " "): list(
                zip(curve.knots.tolist(), curve.factors.tolist(), strict=True)
            )
            for curve in shown
        }
        charts.append((title, line_chart(lines, ticks_within(lines, ticks), x_name, "attention")))
    return charts


def ticks_within(lines: dict[str, list[tuple[float, float]]], ticks: dict[str, float]) -> dict[float, str] | None:
    """Ticks at log2(1 + value) between the finite ends of the lines; None: round numbers."""
    finite = [x for line in lines.values() for x, y in line if y == y]
    places = {math.log2(1 + value): name for name, value in ticks.items()}
    return {x: name for x, name in places.items() if min(finite) <= x <= max(finite)} or None
