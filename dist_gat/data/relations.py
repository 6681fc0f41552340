"""`read_relations`: more behaviours of the users and items, from tables of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.config.sections import DataConfig
from dist_gat.data.table import IDS, read_table


def read_relations(config: DataConfig, types: Mapping[str, pl.DataType]) -> tuple[dict[str, pl.DataFrame], int]:
    """The table of each relation, and the number of bad rows left out.

    types: of the IDs of the interactions, by column. Raises `DataError` as `read_table` does, and where IDs have
    another type.
    """
    tables: dict[str, pl.DataFrame] = {}
    dropped = 0
    for name, relation in config.relations.items():
        path = Path(config.path, relation.interactions)
        settings = config.model_copy(update={"columns": relation.columns, "min_weight": None})
        table, bad = read_table(path, settings, relation.where)
        dropped += bad
        for column in IDS:
            found, expected = table[column].dtype, types[column]
            if found != expected and not (found.is_integer() and expected.is_integer()):
                raise DataError(
                    f"{path}: {column} is {found}, and {expected} in the interactions; write the IDs of all tables "
                    "alike"
                )
            table = table.with_columns(table[column].cast(expected))
        tables[name] = table
    return tables, dropped
