"""`MetricTable`: the numbers of a JSON file as tables, whatever its layout.

Every map that has numbers becomes a row, named by the keys that lead to it and by its own texts; rows with the same
columns stand in one table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dist_gat.base.errors import StorageError

MAX_ROWS = 1000


@dataclass
class MetricTable:
    """rows: name, and one number a column."""

    columns: list[str]
    rows: list[tuple[str, list[float]]] = field(default_factory=list)


def read_json(path: Path, writer: str) -> Any:
    """A JSON file's content, None where there is no file. Raises `StorageError` that names the command to write it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as err:
        raise StorageError(f"{path}: expected a JSON file: {err}; write it anew with `{writer}`") from None


def metric_tables(tree: Any) -> list[MetricTable]:
    """The tables of a tree of maps, lists and values; the first `MAX_ROWS` rows. Numbers at its root are left out."""
    tables: dict[tuple[str, ...], MetricTable] = {}
    for name, numbers in islice(_find_rows(tree, ()), MAX_ROWS):
        table = tables.setdefault(tuple(numbers), MetricTable(list(numbers)))
        table.rows.append((name, list(numbers.values())))
    return list(tables.values())


def _find_rows(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, float]]]:
    if isinstance(tree, list):
        for number, child in enumerate(tree, start=1):
            texts = [v for v in child.values() if isinstance(v, str)] if isinstance(child, dict) else []
            yield from _find_rows(child, (*path, ", ".join(texts) or str(number)))
    elif isinstance(tree, dict):
        numbers = {
            str(k): float(v) for k, v in tree.items() if isinstance(v, int | float) and not isinstance(v, bool)
        }  # fmt: skip
        if numbers and path:
            yield " / ".join(path), numbers
        for key, child in tree.items():
            yield from _find_rows(child, (*path, str(key)))
