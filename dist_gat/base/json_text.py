"""Results as JSON that every reader accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def to_json(tree: Any, default: Callable[[Any], Any] | None = None) -> str:
    """One line of JSON. An undefined number, NaN or infinite, becomes null: JSON has no other word for it.

    default: turns what JSON can't hold into something that it can, as in `json.dumps`.
    """
    return json.dumps(_with_null(tree), default=default, allow_nan=False)


def _with_null(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _with_null(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_with_null(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
