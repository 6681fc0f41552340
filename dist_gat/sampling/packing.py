"""`pack`: places rows of several node types, each type with its own row size, in one flat message.

All types share one message a rank, because one more collective costs a step more than its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dist_gat.graph.ranges import NodeRanges


@dataclass(frozen=True)
class Segment:
    """Rows of one type for one rank. keys: their slice of the keys. numbers: their slice of the flat message."""

    kind: str
    keys: slice
    numbers: slice


def pack(num_rows: Sequence[Sequence[int]], sizes: Mapping[str, int]) -> tuple[list[Segment], list[int]]:
    """The segments of a message, and how many numbers go to or come from each rank.

    num_rows: by rank, then by type in the order of `sizes`; keys are in the order of rank and type.
    sizes: the numbers of a row by type.
    """
    segments, totals = [], []
    key = number = 0
    for of_rank in num_rows:
        first = number
        for (kind, size), count in zip(sizes.items(), of_rank, strict=True):
            end = number + count * size
            segments.append(Segment(kind, slice(key, key + count), slice(number, end)))
            key, number = key + count, end
        totals.append(number - first)
    return segments, totals


def count_types(
    nodes: np.ndarray, counts: Sequence[int], sizes: Mapping[str, int], ranges: NodeRanges
) -> list[list[int]]:
    """The `num_rows` of `pack`, for int64 [n] nodes, the first counts[0] of rank 0, and so on."""
    num_types = len(ranges.node_types)
    rank_and_type = np.repeat(np.arange(len(counts)) * num_types, counts) + ranges.type_of(nodes)
    found = np.bincount(rank_and_type, minlength=len(counts) * num_types).reshape(len(counts), num_types)
    return found[:, [ranges.index_of(kind) for kind in sizes]].tolist()
