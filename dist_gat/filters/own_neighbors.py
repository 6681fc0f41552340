"""`Neighbors`: the edges to the nodes of a part, with a weight each.

Shape legend: n nodes of a part, e edges, N nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from dist_gat.exchange.worker import Worker
from dist_gat.filters.user_items import UserItems
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore


@dataclass(frozen=True)
class Neighbors:
    """starts: int64 [n + 1], where the edges to each node begin. sources: node IDs [e]. weights: float32 [e]; None: all
    are 1.
    """

    starts: np.ndarray
    sources: np.ndarray
    weights: np.ndarray | None

    def weights_of(self, first: int, last: int) -> np.ndarray:
        """float32 [last - first]"""
        return np.ones(last - first, np.float32) if self.weights is None else self.weights[first:last]

    @property
    def degrees(self) -> np.ndarray:
        """[n]: the sum of the weights of each node's edges."""
        counts = np.diff(self.starts)
        if self.weights is None:
            return counts
        return np.bincount(np.repeat(np.arange(len(counts)), counts), self.weights, len(counts))


# by number of the part, of all that a rank has
OwnNeighbors = Mapping[int, Neighbors]


def weighted_neighbors(profiles: UserItems, store: GraphStore, worker: Worker, relation: Relation) -> OwnNeighbors:
    """The rows of R at this rank's users, and of its transpose at the items, from the user items of every part.

    Collective.
    """
    ranges = store.ranges
    found: dict[int, list[tuple[np.ndarray, ...]]] = {part: [] for part in store.own_parts}
    for number in worker.steps("weights of neighbours", range(ranges.num_parts), ranges.num_parts):
        profile_UN, users = profiles(number), ranges.nodes_of_type(number, relation.source)
        for part, edges in found.items():
            if number == part:
                user, item, weight = _entries(profile_UN)
                edges.append((user + users.start, item, weight))
            items = ranges.nodes_of_type(part, relation.target)
            user, item, weight = _entries(profile_UN[:, items.start : items.stop])
            edges.append((item + items.start, user + users.start, weight))
    neighbors = {}
    for part, edges in found.items():
        node, source, weight = (np.concatenate(column) for column in zip(*edges, strict=True))
        first, last = ranges.starts[part : part + 2].tolist()
        rows_nN = csr_array((weight, (node - first, source)), shape=(last - first, ranges.num_nodes))
        neighbors[part] = Neighbors(rows_nN.indptr.astype(np.int64), rows_nN.indices, rows_nN.data)
    return neighbors


def nothing_as_one(degree: np.ndarray) -> np.ndarray:
    """Degrees with 1 in the place of 0: what they scale is 0."""
    return np.where(degree > 0, degree, 1)


def _entries(matrix: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns, int64, and values of a matrix."""
    entries = coo_array(matrix)
    row, column = (each.astype(np.int64) for each in entries.coords)
    return row, column, entries.data
