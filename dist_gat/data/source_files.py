"""`source_files`: the files that a recipe's data come from."""

from __future__ import annotations

from pathlib import Path

from dist_gat.config.sections import DataConfig
from dist_gat.data.given_split import split_files
from dist_gat.data.relations import relation_files


def source_files(config: DataConfig) -> list[Path]:
    """Every file that `prepare` reads: interactions or given splits, relations, features, titles; in this order.

    They may be missing. A file that several settings name comes several times.
    """
    if config.split.method == "files":
        interactions = list(split_files(config).values())
    else:
        interactions = [Path(config.path, config.interactions or "")]
    beside = (config.user_features, config.item_features, config.item_titles)
    tables = [Path(config.path, feature.path) for feature in beside if feature is not None]
    return [*interactions, *relation_files(config).values(), *tables]
