"""Histograms: heights are shares, many bins are merged."""

from __future__ import annotations

import re

import pytest

from dist_gat.pages.axes import BOTTOM, HEIGHT, TOP
from dist_gat.pages.histogram_chart import histogram_chart

WHOLE = HEIGHT - TOP - BOTTOM


def heights(svg: str, series: int = 0) -> list[float]:
    return [float(h) for h in re.findall(rf'class="k{series} step" [^>]*height="([\d.]+)"', svg)]


def test_bars_are_shares_of_their_series() -> None:
    svg = histogram_chart({"a": [1, 3], "b": [20, 20]}, (0.0, 1.0), "x")
    assert heights(svg) == pytest.approx([WHOLE / 3, WHOLE], abs=0.1)
    assert heights(svg, 1) == pytest.approx([WHOLE * 2 / 3] * 2, abs=0.1)
    assert "<i class" in svg, "a legend"


@pytest.mark.parametrize(("bins", "bars"), [(100, 25), (40, 20), (25, 25), (7, 7), (31, 31)])
def test_many_bins_are_merged(bins: int, bars: int) -> None:
    found = heights(histogram_chart({"a": [1] * bins}, (0.0, 1.0), "x"))
    assert len(found) == bars
    assert found == pytest.approx([WHOLE] * bars)


def test_empty_series_are_left_out() -> None:
    assert "nothing to draw" in histogram_chart({"a": [0, 0], "b": []}, (0.0, 1.0), "x")


def test_ticks_may_be_named() -> None:
    svg = histogram_chart({"a": [1, 3]}, (0.0, 2.0), "x", {0.5: "none", 1.5: "<some>"})
    assert re.findall(r'text-anchor="middle">([^<]*)<', svg) == ["none", "&lt;some&gt;"]
