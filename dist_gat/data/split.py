"""Division of interactions into train, valid and test, whatever the order of their rows and the size of chunks.

Shape legend: E edges; c of a chunk. A split is a number: its position in SPLITS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from dist_gat.config.data_sections import SplitConfig
from dist_gat.data.edge_file import GONE, Columns, EdgeFile, with_column
from dist_gat.data.engine import Engine
from dist_gat.data.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
AT_ONCE = 1 << 20  # values that are sorted in memory
DIGIT_BITS = 16
SIGN = np.uint64(1 << 63)

Keys = Callable[[], Iterator[np.ndarray]]


class Rank(NamedTuple):
    """The value at a rank of all sorted values, and how many are smaller."""

    value: np.uint64
    below: int


def value_at_rank(keys: Keys, rank: int) -> Rank:
    """keys: uint64 [E] in chunks, as often as asked. rank: 0 to E - 1.

    Reads them once for each 16 bits, from the highest, until those that are left fit in memory.
    """
    prefix, below = np.uint64(0), 0
    for shift in range(64 - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = np.zeros(1 << DIGIT_BITS, np.int64)
        for chunk in keys():
            own = chunk if shift + DIGIT_BITS == 64 else chunk[chunk >> np.uint64(shift + DIGIT_BITS) == prefix]
            digit = (own >> np.uint64(shift)) & np.uint64((1 << DIGIT_BITS) - 1)
            counts += np.bincount(digit.astype(np.int64), minlength=len(counts))
        ends = below + np.cumsum(counts)
        found = int(np.searchsorted(ends, rank, side="right"))
        below = int(ends[found] - counts[found])
        prefix = prefix << np.uint64(DIGIT_BITS) | np.uint64(found)
        if shift and counts[found] <= AT_ONCE:
            left = np.sort(np.concatenate([chunk[chunk >> np.uint64(shift) == prefix] for chunk in keys()]))
            value = left[rank - below]
            return Rank(value, below + int(np.searchsorted(left, value)))
    return Rank(prefix, below)


def with_keys(edges: EdgeFile, hashes: tuple[np.ndarray, np.ndarray], rows: int) -> EdgeFile:
    """With the column `key`, a hash of each pair. hashes: `hash_ids` of users and items."""

    def keys() -> Iterator[np.ndarray]:
        for chunk in edges.chunks(rows, ["source", "target"]):
            yield _mix(hashes[0][chunk["source"]] + _mix(hashes[1][chunk["target"]]))

    return with_column(edges, "key", "uint64", keys())


def split_edges(edges: EdgeFile, split: SplitConfig, degree: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """The split of every edge, in chunks; rows: of about each chunk.

    temporal: the latest edges are test, those before valid; edges of one time stay together, on the later side.
    leave_last_out: a user's last edge is test, with at least 3 edges the one before is valid.
    random: edges ranked by `key`, of equal ones the first; the counts are the rounded ratios.
    """
    if split.method == "leave_last_out":
        return (_last_of_users(chunk) for chunk in edges.whole_users(degree, rows))
    num_test = round(edges.count * split.test_ratio)
    num_valid = min(round(edges.count * split.valid_ratio), edges.count - num_test)
    if not num_test + num_valid:
        return (np.full(len(chunk["source"]), TRAIN) for chunk in edges.chunks(rows, ["source"]))
    firsts = edges.count - num_test - num_valid, edges.count - num_test
    if split.method == "temporal":
        times = lambda: (_ordered(chunk["time"]) for chunk in edges.chunks(rows, ["time"]))  # noqa: E731
        bounds = [value_at_rank(times, first).value if first < edges.count else None for first in firsts]
        return (_reached(time, bounds) for time in times())
    keys = lambda: (chunk["key"] for chunk in edges.chunks(rows, ["key"]))  # noqa: E731
    return _by_rank(keys, [value_at_rank(keys, first) if first < edges.count else None for first in firsts], firsts)


def _by_rank(keys: Keys, bounds: list[Rank | None], firsts: tuple[int, int]) -> Iterator[np.ndarray]:
    """How many ranks each edge has reached, where of equal keys an earlier edge comes first."""
    tied = [0, 0]  # equal keys so far
    for chunk in keys():
        found = np.zeros(len(chunk), np.int64)
        for number, (bound, first) in enumerate(zip(bounds, firsts, strict=True)):
            if bound is not None:
                equal = np.flatnonzero(chunk == bound.value)
                found += chunk > bound.value
                found[equal] += bound.below + tied[number] + np.arange(len(equal)) >= first
                tied[number] += len(equal)
        yield found


def _reached(keys: np.ndarray, bounds: list[np.uint64 | None]) -> np.ndarray:
    """int64 [c]: how many of the bounds each key has reached. None: a bound that no key reaches."""
    return np.sum([keys >= bound for bound in bounds if bound is not None], axis=0, initial=0) + np.zeros(
        len(keys), int
    )


def _ordered(time: np.ndarray) -> np.ndarray:
    """uint64 in the order of int64 values."""
    return time.view(np.uint64) ^ SIGN


def _last_of_users(chunk: Columns) -> np.ndarray:
    user, time, item = chunk["source"], chunk["time"], chunk["target"]
    order = np.lexsort((item, time, user))
    ordered = user[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    count = ends - np.searchsorted(ordered, ordered)
    after = ends - 1 - np.arange(len(order))  # edges of the user that come later
    found = np.empty(len(order), np.int64)
    found[order] = np.where((after == 0) & (count > 1), TEST, np.where((after == 1) & (count > 2), VALID, TRAIN))
    return found


def hash_ids(engine: Engine, vocabulary: Vocabulary, prefix: str) -> np.ndarray:
    """uint64 [N]: a hash of each ID's text. A library's own hash may change between versions."""
    digests = []
    for ids in vocabulary.ids(engine):
        texts = (hashlib.blake2b(f"{prefix}{text}".encode(), digest_size=8).digest() for text in ids.cast(str))
        digests.append(np.frombuffer(b"".join(texts), dtype="<u8"))
    return np.concatenate(digests)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, on uint64 [c]."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def given_splits(edges: EdgeFile, degree: np.ndarray, rows: int, valid_is_part_of_train: bool) -> Iterator[np.ndarray]:
    """The splits of edges whose pairs may be in several: each stays in the first, or with `valid_is_part_of_train` in
    valid instead of train; the others are GONE."""
    for chunk in edges.whole_users(degree, rows):
        split = chunk["split"].astype(np.int64)
        same = np.append(
            (chunk["source"][1:] == chunk["source"][:-1]) & (chunk["target"][1:] == chunk["target"][:-1]), False
        )
        if valid_is_part_of_train:
            later = np.append(split[1:], TRAIN)
            split[same & (split == TRAIN) & (later == VALID)] = GONE
        second = np.append(False, same[:-1])
        third = second & np.append(False, second[:-1])
        # in a pair's edges, which stand in the order of splits, the first that is kept stays
        split[third | (second & np.append(False, split[:-1] != GONE))] = GONE
        yield split
