"""Line charts: where points land, gaps, ticks, and escaped names."""

from __future__ import annotations

import math
import re

import pytest

from dist_gat.pages.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, round_ticks
from dist_gat.pages.chart import line_chart


def lines(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in text.split()] for text in found]


def test_the_extremes_of_the_curves_touch_the_edges() -> None:
    svg = line_chart({"a": [(0, 1.0), (10, 3.0)], "b": [(5, 2.0)]})
    middle = ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2)
    assert lines(svg) == [[(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)], [middle]]
    assert svg.count("<circle") == 1, "a single point is a dot"


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    svg = line_chart({"a": [(0, 1.0), (1, math.nan), (2, 3.0), (3, math.inf), (4, 2.0), (5, 2.0)]})
    assert [len(line) for line in lines(svg)] == [1, 1, 2]
    assert "nan" not in svg
    assert "inf" not in svg
    assert "nothing to draw" in line_chart({"a": [(0, math.nan)]})


@pytest.mark.parametrize("value", [0.0, 0.02, -3.0, 1e12])
def test_a_constant_curve_is_a_level_line(value: float) -> None:
    (line,) = lines(line_chart({"a": [(0, value), (1, value)]}))
    assert line[0][1] == line[1][1]
    assert TOP < line[0][1] < HEIGHT - BOTTOM


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    (line,) = lines(line_chart({"a": [(x, float(x)) for x in range(100_001)]}))
    assert len(line) <= 402
    assert (line[0], line[-1]) == ((LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (50, 525), (0.857, 0.99), (-3, 7), (1e-9, 3e-9), (0, 1e7)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-12 <= tick <= high * (1 + 1e-12) for tick in ticks)
    step = ticks[1] - ticks[0]
    assert f"{step:.3e}"[0] in "125"


def test_names_and_labels_are_escaped() -> None:
    svg = line_chart({"<b>&": [(0, 1.0), (1, 2.0)]}, {0: "<i>"})
    assert "<b>" not in svg
    assert "<i>" not in svg.replace("<i style", "")
    assert "&lt;b&gt;&amp;" in svg
    assert "&lt;i&gt;" in svg
