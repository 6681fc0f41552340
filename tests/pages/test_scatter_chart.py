"""Dots beside the line of equal numbers, on linear and on logarithmic axes."""

from __future__ import annotations

import math
import re

import pytest

from dist_gat.pages.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from dist_gat.pages.scatter_chart import LARGEST, SMALLEST, Dot, scatter_chart


def dots_of(svg: str) -> list[tuple[float, ...]]:
    found = re.findall(r'<circle class="k0 dot" cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', svg)
    return [tuple(map(float, dot)) for dot in found]


def test_dots_lie_where_their_numbers_are() -> None:
    svg = scatter_chart([Dot(0.0, 1.0, 99.0), Dot(1.0, 0.0, 0.0)], "said", "true", (0.0, 1.0))
    assert dots_of(svg) == [(LEFT, TOP, LARGEST), (WIDTH - RIGHT, HEIGHT - BOTTOM, SMALLEST)]
    assert "true by said" in svg


def test_whiskers_have_room_and_both_axes_one_span() -> None:
    svg = scatter_chart([Dot(2.0, 3.0, 1.0, spread=2.0)], "x", "y")
    ((x, top, bottom),) = re.findall(r'class="whisker k0" d="M([\d.]+) ([\d.]+)V([\d.]+)"', svg)
    assert {float(top), float(bottom)} == {TOP, HEIGHT - BOTTOM}
    assert float(x) == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) / 4, abs=0.1)


def test_wide_positive_numbers_are_logarithmic() -> None:
    svg = scatter_chart([Dot(0.1, 0.1, 1.0), Dot(10.0, 10.0, 1.0), Dot(1000.0, 1000.0, 1.0)], "x", "y")
    places = [x for x, _, _ in dots_of(svg)]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.1)
    assert "x (log)" in svg
    assert ">1,000<" in svg
    assert "(log)" not in scatter_chart([Dot(0.0, 0.1, 1.0), Dot(10.0, 9.0, 1.0)], "x", "y")


def test_nothing_is_no_error() -> None:
    assert "nothing to draw" in scatter_chart([], "x", "y")
    assert not math.isnan(dots_of(scatter_chart([Dot(3.0, 3.0, 0.0)], "x", "y"))[0][0])
