"""`line_chart`: a few curves as one inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dist_gat.pages.axes import HEIGHT, NUM_COLORS, TOP, WIDTH, Axes, legend, picture, span_of

MAX_POINTS = 400  # of a curve; more can't be told apart at this width
NOTHING = Markup("<p>nothing to draw: no finite values</p>")

Curve = Sequence[tuple[float, float]]


def line_chart(
    curves: Mapping[str, Curve], x_labels: Mapping[float, str] | None = None, x_name: str = "", y_name: str = "",
    mark: tuple[float, str] | None = None,
) -> Markup:  # fmt: skip
    """Curves of (x, y) by name, with axes, and a legend of several. Points that are not finite leave a gap.

    x_labels: ticks of the x axis, by their x; by default round numbers. mark: an x, and what is there.
    """
    points = [(x, y) for curve in curves.values() for x, y in curve if math.isfinite(y)]
    if not points:
        return NOTHING
    axes = Axes(span_of([x for x, _ in points]), span_of([y for _, y in points]), x_name, y_name)
    shapes = axes.frame(x_labels)
    if mark is not None:
        shapes += _mark(axes, *mark)
    for number, curve in enumerate(curves.values()):
        color = number % NUM_COLORS
        for run in _finite_runs(_thin(curve)):
            text = " ".join("{:.1f},{:.1f}".format(*axes.place(x, y)) for x, y in run)
            shapes.append(Markup('<polyline points="{}" class="k{}"/>').format(text, color))
            if len(run) == 1:
                shapes.append(
                    Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" class="k{}"/>').format(*axes.place(*run[0]), color)
                )
    return picture(shapes, ", ".join(curves)) + legend(list(curves))


def _mark(axes: Axes, x: float, label: str) -> list[Markup]:
    """A vertical line with a label on the side that has room."""
    at, bottom = axes.place(x, axes.y_span[0])
    side, shift = ("start", 5) if at < WIDTH / 2 else ("end", -5)
    return [
        Markup('<line class="mark" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2:.1f}"/>').format(at, TOP, bottom),
        Markup('<text class="marked" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
            at + shift, (TOP + HEIGHT) // 2, side, label
        ),
    ]


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
