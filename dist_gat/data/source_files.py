"""`source_files`: the files that a recipe's data come from."""

from __future__ import annotations

from contextlib import suppress

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig, Files
from dist_gat.data.data_file import DataFile, find_files


def source_files(config: DataConfig) -> list[DataFile]:
    """Every file that `prepare` reads, once: interactions or given splits, relations, columns of nodes, titles.

    Those that are missing, and tables in memory or in a database server, are none.
    """
    own = (config.train, config.valid, config.test) if config.split.method == "files" else (config.interactions,)
    names: list[Files | None] = [*own, *(relation.table for relation in config.relations.values())]
    for column in (column for of_type in config.node_columns.values() for column in of_type):
        names += [column.files, column.config.ids]
    names += [config.item_titles.path] if config.item_titles is not None else []
    names += [given for given in (config.split.cold_items, config.split.cold_users) if isinstance(given, str)]
    found: dict[str, DataFile] = {}
    for name in names:
        if name is not None and not str(name).startswith("postgres"):
            with suppress(DataError):
                found |= {file.name: file for file in find_files(name, config.path, "data")}
    return list(found.values())
