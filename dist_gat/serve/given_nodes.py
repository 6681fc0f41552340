"""New nodes as a user gives them: JSON lines, a table, or Python dictionaries, each with the place where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dist_gat.base.errors import DataError, first_line
from dist_gat.data.parquet import read_parquet
from dist_gat.data.text_table import shown
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
