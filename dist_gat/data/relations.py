"""`read_relations`: more behaviours of the users and items, from tables of their own."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dist_gat.config.sections import DataConfig
from dist_gat.data.table import read_table


def relation_files(config: DataConfig) -> dict[str, Path]:
    return {name: Path(config.path, relation.interactions) for name, relation in config.relations.items()}


def read_relations(config: DataConfig) -> tuple[dict[str, pl.DataFrame], int]:
    """The table of each relation, and the number of bad rows left out. Raises `DataError` as `read_table` does."""
    tables: dict[str, pl.DataFrame] = {}
    dropped = 0
    for name, path in relation_files(config).items():
        relation = config.relations[name]
        settings = config.model_copy(update={"columns": relation.columns, "min_weight": None})
        tables[name], bad = read_table(path, settings, relation.where)
        dropped += bad
    return tables, dropped
