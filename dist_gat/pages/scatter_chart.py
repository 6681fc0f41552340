"""`scatter_chart`: what was predicted against what was true, beside the line on which both are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dist_gat.pages.axes import Axes, Span, picture, span_of
from dist_gat.pages.chart import NOTHING

# radius of a dot: of all pairs if it were alone, and the bounds
WHOLE, SMALLEST, LARGEST = 20.0, 2.0, 9.0
# from this ratio on a linear axis would show the large ones alone
LOG_RATIO = 50.0


@dataclass(frozen=True)
class Dot:
    """weight: how much it stands for. spread: half the length of its whisker."""

    x: float
    y: float
    weight: float
    spread: float = 0.0


def scatter_chart(dots: Sequence[Dot], x_name: str, y_name: str, span: Span | None = None) -> Markup:
    """Dots as large as their weight, on two axes of the same span: by default that of the dots, logarithmic where it is
    positive and wide."""
    if not dots:
        return NOTHING
    middles = [number for dot in dots for number in (dot.x, dot.y)]
    if span is None and min(middles) > 0 and max(middles) > LOG_RATIO * min(middles):
        return _log_chart(dots, x_name, y_name)
    ends = [end for dot in dots for end in (dot.x, dot.y - dot.spread, dot.y + dot.spread)]
    axes = Axes(span or span_of(ends), span or span_of(ends), x_name, y_name)
    return picture([*axes.frame(), *_draw(axes, dots)], f"{y_name} by {x_name}")


def _log_chart(dots: Sequence[Dot], x_name: str, y_name: str) -> Markup:
    """Without whiskers, which would reach below 0."""
    moved = [Dot(math.log10(dot.x), math.log10(dot.y), dot.weight) for dot in dots]
    span = span_of([number for dot in moved for number in (dot.x, dot.y)])
    ticks = {float(n): f"{10.0**n:,.6g}" for n in range(math.ceil(span[0]), math.floor(span[1]) + 1)}
    axes = Axes(span, span, f"{x_name} (log)", f"{y_name} (log)")
    return picture([*axes.frame(ticks, ticks), *_draw(axes, moved)], f"{y_name} by {x_name}")


def _draw(axes: Axes, dots: Sequence[Dot]) -> list[Markup]:
    low, high = axes.x_span
    start, end = axes.place(low, low), axes.place(high, high)
    shapes = [
        Markup('<line class="mark" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(*start, *end),
    ]
    total = sum(dot.weight for dot in dots) or 1.0
    for dot in dots:
        x, y = axes.place(dot.x, dot.y)
        if dot.spread > 0:
            ends = axes.place(dot.x, dot.y - dot.spread)[1], axes.place(dot.x, dot.y + dot.spread)[1]
            shapes.append(Markup('<path class="whisker k0" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, *ends))
        radius = min(max(WHOLE * math.sqrt(dot.weight / total), SMALLEST), LARGEST)
        shapes.append(
            Markup('<circle class="k0 dot" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(x, y, radius)
        )  # fmt: skip
    return shapes
