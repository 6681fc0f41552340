"""What a run left behind, read so that a file of another layout, or from somebody else, misses numbers and no more."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dist_gat.base.errors import StorageError
from dist_gat.train.event_log import PROGRESS_FILE


def read_json(path: Path, writer: str) -> Any:
    """A JSON file's content, None where there is no file. Raises `StorageError` that names the command to write it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as err:
        raise StorageError(f"{path}: expected a JSON file: {err}; write it anew with `{writer}`") from None


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run, oldest first, without lines that a killed process left unfinished."""
    try:
        lines = (folder / PROGRESS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [event for event in map(_event, lines) if event]


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def branch(tree: Any, *keys: str) -> dict[str, Any]:
    """The map below some keys; empty where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def rows_of(tree: Any, *keys: str) -> list[dict[str, Any]]:
    """The maps of the list below some keys."""
    *path, last = keys
    found = branch(tree, *path).get(last)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def number_in(tree: Any, *keys: str) -> float | None:
    """The finite number below some keys, or None."""
    *path, last = keys
    value = branch(tree, *path).get(last)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def text_in(tree: Any, *keys: str) -> str:
    """The text below some keys; empty where there is none."""
    *path, last = keys
    value = branch(tree, *path).get(last)
    return value if isinstance(value, str) else ""
