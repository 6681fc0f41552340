"""`pack`: where the rows of several node types lie in one flat message, whose rows have a size for each type.

One message a rank instead of one a type: a collective costs a step more than what it carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dist_gat.graph.ranges import NodeRanges


@dataclass(frozen=True)
class Segment:
    """Rows of one type for one rank. keys: which of the keys. numbers: which of the flat message's numbers."""

    kind: str
    keys: slice
    numbers: slice


def pack(num_rows: Sequence[Sequence[int]], sizes: Mapping[str, int]) -> tuple[list[Segment], list[int]]:
    """The segments of a message, and how many numbers go to or come from each rank.

    num_rows: of each rank, of each type in the order of `sizes`; keys are in the order of rank and type.
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
    """`num_rows` of int64 [n] nodes, the first counts[0] of rank 0, and so on."""
    num_types = len(ranges.node_types)
    rank_and_type = np.repeat(np.arange(len(counts)) * num_types, counts) + ranges.type_of(nodes)
    found = np.bincount(rank_and_type, minlength=len(counts) * num_types).reshape(len(counts), num_types)
    return found[:, [ranges.index_of(kind) for kind in sizes]].tolist()
