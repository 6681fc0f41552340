"""`pack`: where the rows of several node types lie in one flat message, whose rows have a size for each type.

One message a rank instead of one a type: a collective costs a step more than what it carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dist_gat.graph.ranges import NodeRanges


@dataclass(frozen=True)
class Segment:
    """Rows of one type for one rank. keys: which of the keys. numbers: which of the flat message's numbers."""

    kind: str
    keys: slice
    numbers: slice


def pack(
    nodes: np.ndarray, counts: list[int], sizes: Mapping[str, int], ranges: NodeRanges
) -> tuple[list[Segment], list[int]]:
    """The segments of a message that has a row for each of `nodes`, and how many numbers go to or come from each rank.

    nodes: int64 [n], the first counts[0] of rank 0, and so on; those of a rank in the order of the types in `sizes`.
    sizes: the numbers of a row by type.
    """
    segments, totals = [], []
    type_of = ranges.type_of(nodes)
    key = number = 0
    for count in counts:
        first = number
        num_of_type = np.bincount(type_of[key : key + count], minlength=len(ranges.node_types))
        for kind, size in sizes.items():
            num_rows = int(num_of_type[ranges.node_types.index(kind)])
            end = number + num_rows * size
            segments.append(Segment(kind, slice(key, key + num_rows), slice(number, end)))
            key, number = key + num_rows, end
        totals.append(number - first)
    return segments, totals
