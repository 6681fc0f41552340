"""`bar_chart`: a few named numbers as horizontal bars. Names stand above their bars, so that long ones fit a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dist_gat.pages.axes import WIDTH, number_ticks, picture
from dist_gat.pages.figures import three_digits

# values stand to the right of all bars
SIDE, VALUE, ROW, THICK, FOOT, HEAD = 8, 58, 40, 13, 26, 24
MAX_LABEL, MAX_NOTE = 34, 52


@dataclass(frozen=True)
class Bar:
    """value: None where it is undefined. spread: half the length of a whisker. kind: a colour, of its own meaning."""

    label: str
    value: float | None
    note: str = ""
    spread: float = 0.0
    kind: str = "other"  # or own, cold


def bar_chart(
    bars: Sequence[Bar], label: str, origin: float = 0.0, reference: tuple[float, str] | None = None,
    show: Callable[[float], str] = three_digits,
) -> Markup:  # fmt: skip
    """Bars from `origin` on, one below the other. reference: a number that a line shows across all, and its name."""
    known = [bar for bar in bars if bar.value is not None and math.isfinite(bar.value)]
    ends = [end for bar in known if bar.value is not None for end in (bar.value - bar.spread, bar.value + bar.spread)]
    ends += [origin, *([reference[0]] if reference else [])]
    low, high = min(ends), max(ends)
    high = high if high > low else low + 1.0

    def across(value: float) -> float:
        return SIDE + (value - low) / (high - low) * (WIDTH - SIDE - VALUE)

    top = HEAD if reference else 0
    bottom = top + ROW * len(bars) + 4
    shapes = []
    for tick, text in number_ticks((low, high)).items():
        at = across(tick)
        anchor = "start" if at < SIDE + 12 else "middle"
        shapes.append(
            Markup('<line class="grid" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}"/>').format(at, top, bottom)
        )
        shapes.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(at, bottom + 16, anchor, text)
        )
    for number, bar in enumerate(bars):
        shapes += _draw(bar, top + number * ROW, across, origin, show)
    if reference:
        at, side = across(reference[0]), "start" if across(reference[0]) < WIDTH / 2 else "end"
        shapes.append(Markup('<line class="mark" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}"/>').format(at, 18, bottom))
        shapes.append(Markup('<text class="marked" x="{:.1f}" y="12" text-anchor="{}">{}</text>').format(
            at, side, f"{reference[1]} {show(reference[0])}"
        ))  # fmt: skip
    return picture(shapes, label, bottom + FOOT)


def _draw(
    bar: Bar, y: int, across: Callable[[float], float], origin: float, show: Callable[[float], str]
) -> list[Markup]:
    known = bar.value is not None and math.isfinite(bar.value)
    value = show(bar.value) if known and bar.value is not None else "undefined"
    shapes = [
        Markup('<text x="{}" y="{}"><tspan class="label {}">{}</tspan> <tspan class="note">{}</tspan></text>').format(
            SIDE, y + 17, bar.kind, shorten(bar.label, MAX_LABEL),
            shorten(bar.note, MAX_NOTE - min(len(bar.label), MAX_LABEL)),
        ),
        Markup('<text class="value" x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - 4, y + 34, value),
    ]  # fmt: skip
    if not known or bar.value is None:
        return shapes
    left, right = sorted((across(origin), across(bar.value)))
    middle = y + 23 + THICK / 2
    shapes.append(
        Markup('<rect class="bar {}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
            bar.kind, left, y + 23, max(right - left, 1.0), THICK
        )
    )
    if bar.spread > 0:
        ends = across(bar.value - bar.spread), across(bar.value + bar.spread)
        shapes.append(
            Markup('<path class="whisker" d="M{0:.1f} {2:.1f}H{1:.1f}M{0:.1f} {3:.1f}v7M{1:.1f} {3:.1f}v7"/>').format(
                *ends, middle, middle - 3.5
            )
        )
    return shapes


def shorten(text: str, size: int) -> str:
    """The text, cut with an ellipsis where it has more characters."""
    return text if len(text) <= size else text[: max(size - 1, 0)] + "…"
