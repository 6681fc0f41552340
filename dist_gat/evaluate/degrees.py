"""`DegreeSlices`: users by activity and items by popularity, cut by training degree over all ranks.

Degrees go through a histogram that the ranks add up, so nobody holds the degrees of all nodes, and nodes of equal
degree are in one slice.

Shape legend: D largest degree of any node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.sampling.graph_store import GraphStore

USER_SLICES = ("cold", "q1", "q2", "q3", "q4")
ITEM_SLICES = ("cold", "head", "mid", "tail")
COLD = 0


@dataclass(frozen=True)
class DegreeSlices:
    """Slices of one node type. By degree, int64 [D + 1]: slice_of, a position in `names`; histogram, a node count."""

    names: tuple[str, ...]
    slice_of: np.ndarray
    histogram: np.ndarray

    def describe(self) -> dict[str, dict[str, int]]:
        """For each slice, the number of its nodes and their smallest and largest degree."""
        described = {}
        for number, name in enumerate(self.names):
            degrees = np.flatnonzero((self.slice_of == number) & (self.histogram > 0))
            described[name] = {
                "num_nodes": int(self.histogram[degrees].sum()),
                "min_degree": int(degrees[0]) if len(degrees) else 0,
                "max_degree": int(degrees[-1]) if len(degrees) else 0,
            }
        return described


def user_slices(store: GraphStore, channel: Channel, node_type: str) -> DegreeSlices:
    """Cold users have no training interaction; q1 to q4 are quartiles of the degree of the others. Collective.

    The cut after q_j is the smallest degree that at least j quarters of the users do not exceed.
    """
    histogram = degree_histogram(store, channel, node_type)
    running = np.cumsum(histogram[1:])
    below = np.concatenate([[0], running])[: len(running)]
    slice_of = 1 + np.minimum(4 * below // max(int(histogram[1:].sum()), 1), 3)
    return DegreeSlices(USER_SLICES, np.concatenate([[COLD], slice_of]), histogram)


def item_slices(store: GraphStore, channel: Channel, node_type: str) -> DegreeSlices:
    """Cold items have no training interaction; the others are cut into thirds of all interactions. Collective.

    From the most popular item on, head items have the first third of the interactions, mid items the second, tail items
    the last; an item belongs to the third in which the interactions of all more popular items end.
    """
    histogram = degree_histogram(store, channel, node_type)
    interactions = histogram * np.arange(len(histogram))
    above = interactions.sum() - np.cumsum(interactions)
    slice_of = 1 + np.minimum(3 * above // max(int(interactions.sum()), 1), 2)
    slice_of[0] = COLD
    return DegreeSlices(ITEM_SLICES, slice_of, histogram)


def degree_histogram(store: GraphStore, channel: Channel, node_type: str) -> np.ndarray:
    """int64 [D + 1]: how many nodes of the type have each training degree. Collective."""
    own = np.concatenate([own_degrees(store, part, node_type) for part in store.own_parts])
    largest = torch.zeros(channel.world_size, dtype=torch.int64)
    largest[channel.rank] = int(own.max(initial=0))
    counts = np.bincount(own, minlength=int(channel.sum(largest).max()) + 1)
    return channel.sum(torch.from_numpy(counts)).numpy()


def own_degrees(store: GraphStore, part: int, node_type: str) -> np.ndarray:
    """int64: training degrees of the nodes of a type in one of this rank's parts, in node-ID order."""
    found = store.prepared.parts[part]
    return found.rows.degrees_of(found.indptr, store.ranges.index_of(node_type))[:, 0]


def degrees_of(store: GraphStore, nodes: np.ndarray) -> np.ndarray:
    """int64 of the shape of `nodes`: their training degrees, 0 for the -1 of a missing one. Collective."""
    distinct, place = np.unique(nodes[nodes >= 0], return_inverse=True)
    degrees = np.zeros(nodes.shape, dtype=np.int64)
    degrees[nodes >= 0] = store.in_degree(distinct)[place]
    return degrees
