"""New nodes as a user gives them: JSON lines, a table, or Python dictionaries, each with the place where it stands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError, first_line
from dist_gat.data.parquet import read_parquet
from dist_gat.data.text_table import shown
from dist_gat.data.values import LAST_SECOND, UNITS
from dist_gat.serve.pairs_file import FORMATS, SEPARATORS, unreadable

NewRows = Path | pl.DataFrame | Sequence[Mapping[str, Any]]
Given = tuple[str, Any]
COLUMN = "columns."  # begins the names of a table's columns of nodes, where these would be others


def given_nodes(
    source: NewRows, kind: str, expected: str, of_table: Callable[[pl.DataFrame, str], list[Given]]
) -> list[Given]:
    """Where it stands, and the dictionary of each node. kind: of the nodes, for messages. expected: of a line.

    Raises `DataError` for what can't be read.
    """
    if isinstance(source, pl.DataFrame):
        return of_table(source, f"the table of new {kind}s")
    if not isinstance(source, Path):
        return [(f"new {kind} {number}", node) for number, node in enumerate(source, start=1)]
    if not source.is_file():
        raise DataError(
            f"{source}: {'no file' if source.exists() else 'no such file'}; expected JSON lines or a table of new "
            f"{kind}s"
        )
    form = FORMATS.get(source.suffix, "JSON lines")
    try:
        if form == "parquet":
            return of_table(read_parquet(source), str(source))
        if form in SEPARATORS:
            return of_table(pl.read_csv(source, separator=SEPARATORS[form], infer_schema=False), str(source))
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, pl.exceptions.PolarsError) as err:
        raise unreadable(source, form, first_line(err)) from None
    places = [(f"{source}, line {number}", line) for number, line in enumerate(lines, 1) if line]
    return [(where, _parsed(line, where, expected)) for where, line in places]


def _parsed(line: str, where: str, expected: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{where}: {first_line(err)}; {expected}") from None


def columns_of_table(table: pl.DataFrame, names: Sequence[str], taken: Sequence[str], where: str) -> dict[str, str]:
    """By name of a column of nodes, the table's column that has it: `columns.NAME`, or NAME unless that is taken.

    Raises `DataError` for `columns.NAME` that the model doesn't read.
    """
    found = {name: name for name in names if name in table.columns and name not in taken}
    for given in table.columns:
        if given.startswith(COLUMN):
            name = given.removeprefix(COLUMN)
            if name not in names:
                expected = ", ".join(names) or "none"
                raise DataError(f"{where}: {shown(given)} is no column that the model reads; it reads {expected}")
            found[name] = given
    return found


def only_value(values: pl.Series, where: str) -> Any:
    """That of a node with several rows. Raises `DataError` where they differ."""
    every = values.drop_nulls().to_list()
    if differing := [value for value in every if value != every[0]]:
        raise DataError(f"{where}: {str(every[0])[:40]!r} and {str(differing[0])[:40]!r}; expected one value a node")
    return every[0] if every else None


def check_id(value: Any, where: str) -> str:
    """The ID as text. Raises `DataError`."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: {str(value)[:40]!r} is no ID; expected text or whole numbers")
    return str(value)


def numbers_of(given_node: Mapping[str, Any], name: str, where: str) -> np.ndarray | None:
    """float64 [m]"""
    if given_node.get(name) is None:
        return None
    try:
        values = np.array([float(value) for value in given_node[name]])
    except (TypeError, ValueError, OverflowError):
        values = np.array([math.nan])
    if not np.isfinite(values.astype(np.float32)).all():
        raise DataError(f"{where}: {name}={str(given_node[name])[:80]}: expected finite numbers")
    return values


def times_of(given_node: Mapping[str, Any], where: str) -> np.ndarray | None:
    """int64 [m], microseconds since 1970, of numbers in s, ms or us, told apart by their size, or of dates."""
    given = given_node.get("times")
    if given is None:
        return None
    try:
        if any(isinstance(one, date) or (isinstance(one, str) and "-" in one[1:]) for one in given):
            return np.array([_microseconds(one) for one in given], dtype=np.int64)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: times={str(given)[:80]}: expected all numbers since 1970 or all dates, as 2024-01-31T12:30:00"
        ) from None
    values = numbers_of(given_node, "times", where)
    assert values is not None, "some are given"
    size = float(np.abs(values).max(initial=0))
    unit = "s" if size <= LAST_SECOND else "ms" if size <= LAST_SECOND * 1e3 else "us"
    return np.round(values * UNITS[unit]).astype(np.int64)


def _microseconds(value: Any) -> int:
    """Of a date or ISO text; without a zone it counts as UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return round((aware - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds() * 1e6)
