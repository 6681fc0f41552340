"""Bars: where they begin and end, what is undefined, whiskers, and escaped names."""

from __future__ import annotations

import math
import re

import pytest

from dist_gat.pages.axes import WIDTH
from dist_gat.pages.bar_chart import SIDE, VALUE, Bar, bar_chart

WHOLE = WIDTH - SIDE - VALUE


def bars_of(svg: str) -> list[tuple[float, float]]:
    """Left end and width of each bar."""
    found = re.findall(r'<rect class="bar [a-z]+" x="([\d.]+)" y="\d+" width="([\d.]+)"', svg)
    return [(float(left), float(width)) for left, width in found]


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_chart([Bar("a", 4.0), Bar("b", 1.0), Bar("c", 0.0)], "three")
    assert bars_of(svg) == [(SIDE, WHOLE), (SIDE, WHOLE / 4), (SIDE, 1.0)]


def test_bars_may_begin_elsewhere_and_go_left() -> None:
    svg = bar_chart([Bar("a", 0.9), Bar("b", 0.4)], "two", origin=0.5)
    (left, width), (other, length) = bars_of(svg)
    assert left == pytest.approx(SIDE + WHOLE / 5, abs=0.1) == other + length
    assert left + width == pytest.approx(SIDE + WHOLE, abs=0.1)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_undefined_has_no_bar(value: float | None) -> None:
    svg = bar_chart([Bar("a", value), Bar("b", 1.0)], "two")
    assert len(bars_of(svg)) == 1
    assert ">undefined<" in svg
    assert "nan" not in svg
    assert bars_of(bar_chart([Bar("a", value)], "one")) == []


def test_a_whisker_is_inside_the_picture() -> None:
    svg = bar_chart([Bar("a", 1.0, spread=0.5)], "one", reference=(2.0, "all:"))
    (ends,) = re.findall(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)', svg)
    assert [float(end) for end in ends] == pytest.approx([SIDE + WHOLE / 4, SIDE + WHOLE * 3 / 4], abs=0.1)
    assert "all: 2" in svg


def test_names_are_escaped_and_long_ones_cut() -> None:
    svg = bar_chart([Bar("<b>" + "x" * 90, 1.0, "<i>")], '"><script>')
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "<script>" not in svg
    assert "x…" in svg
