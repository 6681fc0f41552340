"""`read_relations`: more behaviours of the same users and items, from tables of their own."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dist_gat.config.sections import DataConfig
from dist_gat.data.table import IDS, read_table


def read_relations(config: DataConfig, known: dict[str, pl.Series]) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """The table of each relation, and by reason the rows left out: bad ones, and those of unknown users or items.

    known: the external IDs of users and items that the interactions have, by column. IDs are read as their type.
    Raises `DataError` as `read_table` does.
    """
    tables: dict[str, pl.DataFrame] = {}
    dropped: dict[str, int] = {}
    for name, relation in config.relations.items():
        settings = config.model_copy(update={"columns": relation.columns, "min_weight": None})
        table, bad = read_table(Path(config.path, relation.interactions), settings, relation.where)
        table = table.with_columns(table[column].cast(known[column].dtype, strict=False) for column in IDS)
        tables[name] = table.filter(*(pl.col(column).is_in(known[column].implode()) for column in IDS))
        dropped[f"bad rows of {name}"] = bad
        dropped[f"rows of {name} with a user or item that no interaction has"] = len(table) - len(tables[name])
    return tables, dropped
