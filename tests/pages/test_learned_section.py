"""Charts of what attention learned of edges."""

from __future__ import annotations

import re

import numpy as np

from dist_gat.nn.learned_terms import LearnedCurve
from dist_gat.pages.learned_section import learned_charts


def curve(term: str, layer: int, edge_type: str, *factors: float) -> LearnedCurve:
    return LearnedCurve(term, layer, edge_type, np.arange(len(factors), dtype=np.float64), np.array(factors))


def test_a_chart_a_term_with_a_line_for_each_layer_and_edge_type() -> None:
    curves = [
        curve("rank", 1, "interacts", 1.0, 0.5, np.nan, np.nan),
        curve("age", 1, "interacts", *[1.0] * 20, np.nan),
        curve("age", 2, "interacts_reversed", *[0.5] * 20, 1.0),
    ]
    charts = dict(learned_charts(curves))
    assert list(charts) == ["Time before the newest edge", "Rank in the history"]
    label = re.search('aria-label="([^"]*)"', charts["Time before the newest edge"])
    assert label is not None
    assert label[1] == "interacts, layer 1, interacts reversed, layer 2"
    texts = re.findall("<text[^>]*>([^<]*)</text>", charts["Time before the newest edge"])
    assert [text for text in texts if text.startswith("1 ")] == ["1 s", "1 min", "1 h", "1 day"]
    texts = re.findall("<text[^>]*>([^<]*)</text>", charts["Rank in the history"])
    assert {"0", "1"} <= set(texts)
    assert "3" not in texts, "training had no edge there"
    assert learned_charts([]) == []
