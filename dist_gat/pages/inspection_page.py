"""The page of a prepared folder: how much there is, how it is spread, and what to look at twice."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from dist_gat.base.plural import plural
from dist_gat.graph.inspection import columns_in_words, repeated_in_words
from dist_gat.pages.bar_chart import Bar, bar_chart
from dist_gat.pages.figures import percent, three_digits
from dist_gat.pages.histogram_chart import histogram_chart
from dist_gat.pages.page import fill_template

MAX_BARS = 16  # of parts or levels
MAX_TICKS = 8


def inspection_page(found: dict[str, Any]) -> str:
    """HTML of what `dist_gat.graph.inspection.inspect_prepared` returns."""
    return fill_template(
        "inspection.html",
        found=found,
        counts=count_rows(found),
        degrees=degree_chart(found["degrees"]),
        remarks=remarks(found),
        labels=label_charts(found["labels"]),
        parts=part_chart(found["parts"]),
        num_shown=min(len(found["parts"]), MAX_BARS),
    )


def count_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and texts: nodes, pairs by relation and split, messages, times, features."""
    rows = [(plural(kind), f"{count:,}") for kind, count in found["num_nodes"].items()]
    for relation, splits in found["pairs"].items():
        rows += [(f"{relation}, {split}", f"{count:,}") for split, count in splits.items() if count]
    rows.append(("messages", f"{found['messages']:,}"))
    rows += columns_in_words(found["columns"])
    # to the second, and all are UTC
    return rows + [(f"{end} time", at[:19].replace("T", " ")) for end, at in (found["time"] or {}).items()]


def remarks(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What to look at twice: names and texts, where there is any."""
    rows = []
    for kind, degrees in found["degrees"].items():
        if degrees["isolated"]:
            rows.append((f"isolated {plural(kind)}", f"{degrees['isolated']:,} receive no message"))
    for kind, cold in found["cold"].items():
        if cold["nodes"]:
            pairs = ", ".join(f"{count:,} {split} pairs" for split, count in cold["pairs"].items() if count)
            rows.append((f"cold {plural(kind)}", f"{cold['nodes']:,} have no training pair; they are in {pairs}"))
    rows += [("repeated pairs", words) for words in repeated_in_words(found["repeated"] or {})]
    rows += [(f"dropped: {reason}", f"{count:,}") for reason, count in found["dropped"].items()]
    return rows + [("warning", str(warning)) for warning in found["warnings"]]


def bin_name(row: dict[str, int]) -> str:
    """The degrees of a bin: 0, 1, 2–3."""
    ends = [three_digits(row["first"]), three_digits(row["last"])]
    return ends[0] if row["first"] == row["last"] else "–".join(ends)


def degree_chart(degrees: dict[str, Any]) -> Markup:
    """How many nodes of each type have so many messages."""
    longest = max((of_kind["histogram"] for of_kind in degrees.values()), key=len)
    size = len(longest)
    series = {
        plural(kind): [row["nodes"] for row in of_kind["histogram"]] + [0] * (size - len(of_kind["histogram"]))
        for kind, of_kind in degrees.items()
    }
    step = -(-size // MAX_TICKS)
    names = {bit + 0.5: three_digits(longest[bit]["first"]) for bit in range(0, size, step)}
    return histogram_chart(series, (0.0, float(size)), "messages of a node, from", names)


def label_charts(labels: dict[str, Any]) -> list[tuple[str, str, Markup | None]]:
    """Of each relation's label: a title, a line, and bars of its levels where they are few."""
    charts = []
    for relation, known in labels.items():
        for name, label in known.items():
            line = (
                f"mean {three_digits(label['mean'])}, from {three_digits(label['min'])} to {three_digits(label['max'])}"
            )
            levels, counts = label.get("levels", []), label.get("counts", [])
            few = 0 < len(levels) <= MAX_BARS
            total = sum(counts) or 1
            bars = [
                Bar(three_digits(level), count / total, f"{count:,} pairs")
                for level, count in zip(levels, counts, strict=True)
            ]
            charts.append(
                (f"{name} of {relation}", line, bar_chart(bars, f"pairs by {name}", show=percent) if few else None)
            )
    return charts


def part_chart(parts: list[dict[str, Any]]) -> Markup:
    """Of the largest parts the shares of all messages."""
    total = sum(part["messages"] for part in parts) or 1
    largest = sorted(parts, key=lambda part: -part["messages"])[:MAX_BARS]
    bars = []
    for part in sorted(largest, key=lambda part: part["part"]):
        notes = [f"{count:,} {plural(kind)}" for kind, count in part["nodes"].items()]
        notes += [] if part["remote"] is None else [f"{percent(part['remote'])} remote"]
        bars.append(Bar(f"part {part['part']}", part["messages"] / total, ", ".join(notes)))
    return bar_chart(bars, "messages by part", show=percent)
