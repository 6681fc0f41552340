"""One type of ID in all tables of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.config.sections import DataConfig
from dist_gat.data.source import open_source
from dist_gat.data.table import IDS

Tables = dict[str, pl.DataFrame]


def with_one_type(tables: Tables, files: Mapping[str, Path], config: DataConfig) -> Tables:
    """The tables with one type of each ID column: Int64 for any integers, String where text files disagree.

    files: of each table. Raises `DataError` where that is not possible.
    """
    for name in IDS:
        tables = _of_column(tables, name, files, config)
    return tables


def _of_column(tables: Tables, name: str, files: Mapping[str, Path], config: DataConfig) -> Tables:
    types = [table[name].dtype for table in tables.values()]
    if all(dtype == types[0] for dtype in types):
        return tables
    if all(dtype.is_integer() and dtype != pl.UInt64 for dtype in types):
        return {key: table.cast({name: pl.Int64}) for key, table in tables.items()}
    is_text = {key: open_source(files[key], config.format, config.separator).is_text for key in tables}
    tables = {key: table.cast({name: pl.String}) if is_text[key] else table for key, table in tables.items()}
    if any(table[name].dtype != pl.String for table in tables.values()):
        found = ", ".join(f"{files[key]}: {dtype}" for key, dtype in zip(tables, types, strict=True))
        raise DataError(f"{name} has different types ({found}); expected one type; write the files with the same type")
    return tables
