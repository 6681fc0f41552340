"""The kernel that draws edges, called with arrays of a test's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dist_gat.sampling.draws import HiddenEdges, hide_pairs
from dist_gat.sampling.edge_draws import STRATEGIES, Slots, StoredEdges, hide_slots
from dist_gat.sampling.edge_draws import draw_edges as draw_slots

NOTHING_HIDDEN = hide_pairs(np.zeros((0, 2), np.int64))


class Way(NamedTuple):
    """An edge type: the number of the node type that it leads to, and how it is drawn."""

    target: int
    fan_out: int
    strategy: str
    has_time: bool
    has_weight: bool


class DrawnEdges(NamedTuple):
    """What was drawn for n nodes along one edge type, each [n, F]. edges: positions among all."""

    sources: np.ndarray
    edges: np.ndarray
    ranks: np.ndarray
    ages: np.ndarray
    weights: np.ndarray


class DrawnWays(NamedTuple):
    """What was drawn along all of them, each [n, W]. kinds: the number of the way."""

    kinds: np.ndarray
    sources: np.ndarray
    edges: np.ndarray
    ranks: np.ndarray
    ages: np.ndarray
    weights: np.ndarray


def draw_edges(
    indptr: np.ndarray, indices: np.ndarray, times: np.ndarray, weights: np.ndarray, rows: np.ndarray,
    nodes: np.ndarray, fan_out: int, key: np.uint64, hidden: HiddenEdges, limits: np.ndarray, strategy: str,
) -> DrawnEdges:  # fmt: skip
    """Of the given rows of nodes, in the order of both, along one edge type."""
    first = int(nodes[0] - rows[0])
    assert (nodes - rows == first).all(), "rows are in the order of their nodes"
    way = Way(0, fan_out, strategy, len(times) > 0, len(weights) > 0)
    sizes = (len(indptr) - 1,)
    return DrawnEdges(
        *draw_ways(indptr, indices, times, weights, sizes, nodes, [way], [key], [0], hidden, limits, first)[1:]
    )


def draw_ways(
    indptr: np.ndarray, indices: np.ndarray, times: np.ndarray, weights: np.ndarray, sizes: Sequence[int],
    nodes: np.ndarray, ways: Sequence[Way], keys: Sequence[np.uint64], hides: Sequence[int], hidden: HiddenEdges,
    limits: np.ndarray, first_node: int = 50,
) -> DrawnWays:  # fmt: skip
    """sizes: how many nodes each type has. hides: the numbers of the ways along which edges are hidden."""
    slots_of_type = np.array([sum(way.target == kind for way in ways) for kind in range(len(sizes))])
    width = max(sum(way.fan_out for way in ways if way.target == kind) for kind in range(len(sizes)))
    starts = lambda counts: np.append(0, np.cumsum(counts))  # noqa: E731
    slots = Slots(
        first_node + starts(sizes), starts(np.array(sizes) * slots_of_type), starts(slots_of_type),
        np.arange(len(ways)), np.array([way.fan_out for way in ways]),
        np.array([STRATEGIES[way.strategy] for way in ways]), np.array([way.has_time for way in ways]),
        np.array([way.has_weight for way in ways]), np.ones(len(ways), bool),
    )  # fmt: skip
    # the category of an edge is its position here
    assert len(indices) < 1 << 16
    categories = np.arange(len(indices), dtype=np.uint16)
    stored = StoredEdges(indptr, indices, times, weights, categories)
    for array in stored:
        array.setflags(write=False)  # as the files of a part are
    out = np.full((len(nodes), 6 * width), 77)
    draw_slots(
        stored, slots, hide_slots([NOTHING_HIDDEN, hidden], [int(number in hides) for number in range(len(ways))]),
        np.array(keys, np.uint64), nodes, limits, np.arange(1, 6), width, out, np.arange(len(nodes)),
    )  # fmt: skip
    sources, kinds, edges, weight_bits, age_bits, ranks = np.split(out, 6, axis=1)
    floats = lambda bits: bits.astype(np.int32).view(np.float32)  # noqa: E731
    return DrawnWays(kinds, sources, edges, ranks, floats(age_bits), floats(weight_bits))
