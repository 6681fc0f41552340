"""For whom is it bad? A metric by activity of users and by popularity of items, cold ones marked."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from dist_gat.pages.bar_chart import Bar, bar_chart
from dist_gat.pages.figures import three_digits
from dist_gat.pages.run_files import branch, number_in
from dist_gat.pages.wording import CHANCE, METRICS, metric_title, slice_title

TITLES = {"users": "Users by activity", "items": "Items by popularity"}


def slices_section(evaluation: Any, split: str, metric: str, higher: bool) -> dict[str, Any]:
    """`charts`, pairs of a title and a picture; `verdict`; `beyond`, rows about the lists of a ranking."""
    slices = branch(evaluation, "slices", split)
    charts, worst = [], []
    for side, title in TITLES.items():
        rows = {name: row for name in branch(slices, side) if (row := branch(slices, side, name))}
        rows = {name: row for name, row in rows.items() if number_in(row, "num_nodes")}
        # items of a ranking have recall alone
        shown = metric if any(metric in row for row in rows.values()) else f"recall@{metric.partition('@')[2]}"
        overall = number_in(evaluation, split, shown)
        if any(shown in row for row in rows.values()):
            bars = [slice_bar(side, name, row, shown) for name, row in rows.items()]
            heading = f"{title}: {metric_title(shown)}"
            charts.append((heading, _chart(bars, heading, shown, overall)))
            worst += [(bar, shown, overall) for bar in bars if bar.value is not None]
    return {
        "charts": charts,
        "verdict": verdict(worst, higher),
        "beyond": beyond_rows(branch(slices, "beyond_accuracy")),
    }


def slice_bar(side: str, name: str, row: dict[str, Any], metric: str) -> Bar:
    """Its degrees, and how much was judged, stand beside its name."""
    low, high = (int(number_in(row, key) or 0) for key in ("min_degree", "max_degree"))
    degrees = "none in training" if not high else f"{low:,}–{high:,}" if low < high else f"{low:,}"
    pairs, users = number_in(row, "num_pairs"), number_in(row, "num_users") or 0.0
    judged, unit = (users, "users") if pairs is None else (pairs, "pairs")
    note = f"{degrees} · {judged:,.0f} {unit}"
    value = number_in(row, metric) if judged else None
    return Bar(slice_title(side, name), value, note, kind="cold" if name == "cold" else "own")


def verdict(found: list[tuple[Bar, str, float | None]], higher: bool) -> str:
    """The slice that is furthest below the metric of all."""
    gaps = [
        ((overall - bar.value if higher else bar.value - overall), bar, metric, overall)
        for bar, metric, overall in found
        if bar.value is not None and overall is not None
    ]
    if not gaps:
        return ""
    gap, bar, metric, overall = max(gaps, key=lambda entry: entry[0])
    if gap <= 0 or bar.value is None:
        return "For nobody in particular."
    return (
        f"Worst for “{bar.label}”: {metric_title(metric)} {three_digits(bar.value)}, where all have "
        f"{three_digits(overall)}."
    )


def beyond_rows(beyond: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Title, meaning and value of what lists look like."""
    found = [(name, number_in(beyond, name)) for name in beyond]
    return [
        (metric_title(name), METRICS.get(name.partition("@")[0], ("", ""))[1], value)
        for name, value in found
        if value is not None
    ]


def _chart(bars: list[Bar], heading: str, metric: str, overall: float | None) -> Markup:
    reference = None if overall is None else (overall, "all:")
    return bar_chart(bars, heading, CHANCE.get(metric, 0.0), reference)
