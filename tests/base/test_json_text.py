"""JSON without NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path

from dist_gat.base.json_text import to_json


def test_what_is_undefined_is_null_at_any_depth() -> None:
    tree = {"a": [1.5, math.nan, (math.inf,)], "b": {"c": -math.inf, "d": "NaN", "e": True, "f": None}}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads(to_json(tree), parse_constant=refuse)
    assert read == {"a": [1.5, None, [None]], "b": {"c": None, "d": "NaN", "e": True, "f": None}}


def test_what_json_cannot_hold_goes_through_the_default() -> None:
    assert json.loads(to_json({"path": Path("a")}, default=str)) == {"path": "a"}
