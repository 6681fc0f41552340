"""`line_chart`: a few curves as one inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 30, 12, 30
MAX_POINTS = 400  # of a curve; more can't be told apart at this width
NUM_TICKS = 6  # at most, and about half as many at least
# Okabe and Ito's palette, which colour-blind people can tell apart
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

Curve = Sequence[tuple[float, float]]


def line_chart(curves: Mapping[str, Curve], x_labels: Mapping[float, str] | None = None) -> Markup:
    """Curves of (x, y) by name, with axes and a legend. Points that are not finite leave a gap.

    x_labels: ticks of the x axis, by their x; by default round numbers.
    """
    points = [(x, y) for curve in curves.values() for x, y in curve if math.isfinite(y)]
    if not points:
        return Markup("<p>nothing to draw: no finite values</p>")
    x_range, y_range = _span([x for x, _ in points]), _span([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    shapes = []
    for y in round_ticks(*y_range):
        at = place(x_range[0], y)[1]
        shapes.append(
            Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(LEFT, at, WIDTH - RIGHT, at)
        )
        shapes.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:.6g}</text>').format(LEFT - 6, at + 4, y)
        )  # fmt: skip
    for x, label in (x_labels or {x: f"{x:,.6g}" for x in round_ticks(*x_range)}).items():
        at = place(x, y_range[0])[0]
        shapes.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(at, HEIGHT - 10, label)
        )  # fmt: skip
    for number, curve in enumerate(curves.values()):
        color = COLORS[number % len(COLORS)]
        for run in _finite_runs(_thin(curve)):
            text = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in run)
            shapes.append(Markup('<polyline points="{}" stroke="{}"/>').format(text, color))
            if len(run) == 1:
                shapes.append(
                    Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>').format(*place(*run[0]), color)
                )
    legend = [
        Markup('<span><i style="background:{}"></i>{}</span>').format(COLORS[number % len(COLORS)], name)
        for number, name in enumerate(curves)
    ]
    svg = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, ", ".join(curves), Markup("").join(shapes)
    )
    return svg + Markup('<div class="legend">{}</div>').format(Markup("").join(legend))


def round_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within a range."""
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of values; some room about a single one."""
    low, high = min(values), max(values)
    # a range that is tiny beside its numbers looks like a point
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) * 0.1 or 0.5
    return low - room, low + room


def _thin(curve: Curve) -> Curve:
    """About MAX_POINTS evenly spaced points at most, and the last."""
    step = math.ceil(len(curve) / MAX_POINTS)
    return [*curve[:-1:step], *curve[-1:]] if step > 1 else curve


def _finite_runs(curve: Curve) -> list[Curve]:
    """The curve, cut where a value is not finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in curve:
        if math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
