"""`PartRows`: where the rows of a part's nodes stand in its CSC.

A node has a row for each edge type that leads to its type, in the order of `Schema.into`, and all of them stand
together: read as one, they are all edges to the node. Where one edge type leads to each type, rows are nodes.

Shape legend: T node types, n nodes, N nodes of the part, R rows of the part, S edge types that lead to one type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import Schema


@dataclass(frozen=True)
class PartRows:
    """bounds: int64 [T + 1], the first node ID of each type in the part, and the part's end. slots: S of each type."""

    bounds: np.ndarray
    slots: tuple[int, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 [T + 1]: the first row of each type, and R."""
        return np.append(0, np.cumsum(np.diff(self.bounds) * np.array(self.slots)))

    @property
    def is_plain(self) -> bool:
        """Whether each node has one row."""
        return all(count == 1 for count in self.slots)

    @property
    def num_rows(self) -> int:
        return int(self.starts[-1])

    def type_of(self, nodes: np.ndarray) -> np.ndarray:
        """The number of the type of each of the part's nodes."""
        return np.searchsorted(self.bounds[1:-1], nodes, side="right")

    def of(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: the first row of each of the part's nodes."""
        if self.is_plain:
            return nodes - self.bounds[0]
        kind = self.type_of(nodes)
        return self.starts[kind] + (nodes - self.bounds[kind]) * np.array(self.slots)[kind]

    def node_starts(self, indptr: np.ndarray) -> np.ndarray:
        """int64 [N + 1]: where the edges to each node begin. indptr: int64 [R + 1]."""
        if self.is_plain:
            return indptr
        return indptr[np.append(self.of(np.arange(self.bounds[0], self.bounds[-1])), self.num_rows)]

    def degrees_of(self, indptr: np.ndarray, kind: int) -> np.ndarray:
        """int64 [n, S]: the edges to all nodes of a type, by edge type; 0 [n, 1] where none leads there."""
        first, last = int(self.starts[kind]), int(self.starts[kind + 1])
        degree = np.diff(indptr[first : last + 1])
        size = int(self.bounds[kind + 1] - self.bounds[kind])
        return degree.reshape(size, self.slots[kind]) if self.slots[kind] else np.zeros((size, 1), np.int64)


def rows_of_part(ranges: NodeRanges, schema: Schema, part: int) -> PartRows:
    return PartRows(ranges.bounds[part], schema.slots)
