"""Division of one interaction table into train, valid and test, whatever the order of its rows."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.config.sections import SplitConfig
from dist_gat.data.vocabulary import build_vocabulary, encode

SPLITS = ("train", "valid", "test")


def split_interactions(table: pl.DataFrame, split: SplitConfig, seed: int) -> dict[str, pl.DataFrame]:
    """Every row of `table` in exactly one of train, valid and test.

    temporal: the latest rows are test, those before valid; rows of one time stay together, on the later side.
    leave_last_out: a user's last row is test, with at least 3 rows the one before is valid.
    random: rows ranked by a hash of (seed, user, item); the counts are the rounded ratios.

    The first two need a datetime column, else `DataError`.
    """
    assert split.method != "files", "given splits are read, not made"
    if split.method != "random" and "datetime" not in table.columns:
        raise DataError(
            f"data.split.method={split.method} orders interactions by time, and data.interactions has no datetime or "
            "timestamp column; name it with data.columns.datetime=NAME, or set data.split.method=random"
        )
    methods = {"temporal": _by_time, "leave_last_out": _by_user, "random": _by_hash}
    part = methods[split.method](table, split, seed)
    return {name: table.filter(part == number) for number, name in enumerate(SPLITS)}


def _by_time(table: pl.DataFrame, split: SplitConfig, seed: int) -> np.ndarray:
    """Number of the split of each row: int [E]."""
    first_valid, first_test = _bounds(len(table), split)
    time = table["datetime"].to_numpy()
    ordered = np.append(np.sort(time), np.iinfo(np.int64).max)
    return (time >= ordered[first_valid]).astype(int) + (time >= ordered[first_test])


def _by_user(table: pl.DataFrame, split: SplitConfig, seed: int) -> np.ndarray:
    after = (pl.len() - pl.int_range(1, pl.len() + 1)).over("user_id")  # rows of the user that come later
    count = pl.len().over("user_id")
    part = pl.when((after == 0) & (count > 1)).then(2).when((after == 1) & (count > 2)).then(1).otherwise(0)
    ordered = table.with_row_index("at").sort("user_id", "datetime", "item_id")
    return ordered.with_columns(part.alias("part")).sort("at")["part"].to_numpy()


def _by_hash(table: pl.DataFrame, split: SplitConfig, seed: int) -> np.ndarray:
    first_valid, first_test = _bounds(len(table), split)
    if first_valid == len(table):
        return np.zeros(len(table), dtype=int)
    user, item = (_hash_ids(table[name], f"{seed}/{name}/") for name in ("user_id", "item_id"))
    columns = (item, user, _mix(user + _mix(item)))
    return from_rank(columns, first_valid).astype(int) + from_rank(columns, first_test)


def from_rank(columns: tuple[np.ndarray, ...], first: int) -> np.ndarray:
    """bool [E]: the rows that `np.lexsort(columns)` puts at rank `first` or later, at less cost than sorting."""
    last = columns[-1]
    if first == len(last):
        return np.zeros(len(last), dtype=bool)
    bound = np.partition(last, first)[first]
    tied = np.flatnonzero(last == bound)
    order = tied[np.lexsort([column[tied] for column in columns])]
    found = last > bound
    found[order[first - np.count_nonzero(last < bound) :]] = True
    return found


def _bounds(num_rows: int, split: SplitConfig) -> tuple[int, int]:
    """Rank of the first valid and of the first test row."""
    num_test = round(num_rows * split.test_ratio)
    num_valid = min(round(num_rows * split.valid_ratio), num_rows - num_test)
    return num_rows - num_test - num_valid, num_rows - num_test


def _hash_ids(ids: pl.Series, prefix: str) -> np.ndarray:
    """uint64 [E]: a hash of each ID's text. Polars' own hash may change between versions."""
    vocabulary = build_vocabulary([ids])
    digests = (hashlib.blake2b(f"{prefix}{text}".encode(), digest_size=8) for text in vocabulary.cast(pl.String))
    return np.frombuffer(b"".join(digest.digest() for digest in digests), dtype="<u8")[encode(ids, vocabulary)]


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, on uint64 [E]."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
