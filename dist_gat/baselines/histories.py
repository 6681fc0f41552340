"""`Histories`: the training interactions that baselines learn from, with times where the data have them.

Shape legend: m interactions, U users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import Relation


@dataclass(frozen=True)
class Histories:
    """users, items: int64 [m], in the order of their node IDs. times: int64 [m], in microseconds, or None."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    num_users: int
    num_items: int

    def matrix(self, weights: np.ndarray | None = None) -> csr_array:
        """float32 [U, I]: 1 at each interaction, or its weight, float32 [m]."""
        values = np.ones(len(self.users), np.float32) if weights is None else weights
        return csr_array((values, (self.users, self.items)), shape=(self.num_users, self.num_items))

    def when(self, name: str) -> np.ndarray:
        """int64 [m]: the times, for a baseline of this name. Raises `ConfigError` without them."""
        if self.times is None:
            raise ConfigError(
                f"{name} goes by the times of interactions, and these data have none: name their column in "
                "data.columns.datetime and prepare again, or leave this baseline out"
            )
        return self.times


def training_histories(prepared: PreparedGraph, relation: Relation) -> Histories:
    """The training pairs of a relation: users are its sources, items its targets."""
    ranges = prepared.ranges
    pairs = np.concatenate([part.pairs(relation, "train") for part in prepared.parts])
    users, items = (
        nodes - shifts(ranges, kind)[ranges.part_of(nodes)]
        for kind, nodes in zip((relation.source, relation.target), pairs.T, strict=True)
    )
    times = None
    if prepared.has_times(relation):
        times = np.concatenate([part.times(relation, "train") for part in prepared.parts])
    return Histories(users, items, times, ranges.count(relation.source), ranges.count(relation.target))


def shifts(ranges: NodeRanges, node_type: str) -> np.ndarray:
    """int64 [P]: in each part, node ID minus position among all nodes of the type."""
    sizes = ranges.counts(node_type)
    return ranges.bounds_of(node_type)[:, 0] - (np.cumsum(sizes) - sizes)
