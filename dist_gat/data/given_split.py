"""Train, valid and test as separate files, checked against each other."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.config.sections import DataConfig
from dist_gat.data.bad_rows import NUM_EXAMPLES, shown
from dist_gat.data.id_types import with_one_type
from dist_gat.data.split import SPLITS
from dist_gat.data.table import IDS, read_table


def split_files(config: DataConfig) -> dict[str, Path]:
    """The files of the splits that are given; valid may be missing."""
    return {split: Path(config.path, name) for split in SPLITS if (name := getattr(config, split))}


def read_given_splits(config: DataConfig) -> tuple[dict[str, pl.DataFrame], int]:
    """The tables of train, valid (empty if not given) and test, and the number of bad rows dropped.

    With `valid_is_part_of_train` the valid pairs are taken out of train. Raises `DataError` where a pair is in
    two splits, or where the files' IDs have different types.
    """
    files = split_files(config)
    tables: dict[str, pl.DataFrame] = {}
    dropped = 0
    for split, path in files.items():
        tables[split], bad = read_table(path, config)
        dropped += bad
    tables = with_one_type(tables, files, config)
    tables.setdefault("valid", tables["train"].clear())
    if config.split.valid_is_part_of_train:
        outside = tables["valid"].join(tables["train"], on=IDS, how="anti")
        if len(outside):
            raise DataError(
                f"{files['valid']}: {len(outside)} pairs are not in {files['train']}, for example "
                f"{_examples(outside)}; data.split.valid_is_part_of_train expects every valid pair there; "
                "correct the files or set it to false"
            )
        tables["train"] = tables["train"].join(tables["valid"], on=IDS, how="anti")
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        shared = tables[other].join(tables[one], on=IDS, how="semi")
        if len(shared):
            part = "; if valid was copied from train, set data.split.valid_is_part_of_train=true"
            raise DataError(
                f"{files[other]}: {len(shared)} pairs are also in {files[one]}, for example {_examples(shared)}; "
                f"expected each pair in one split, else evaluation leaks; remove them from one file"
                f"{part if other == 'valid' else ''}"
            )
    return tables, dropped


def _examples(pairs: pl.DataFrame) -> str:
    rows = pairs.select(IDS).sort(IDS).head(NUM_EXAMPLES).iter_rows()
    return ", ".join(f"(user {shown(user)}, item {shown(item)})" for user, item in rows)
