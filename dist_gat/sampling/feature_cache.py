"""`FeatureCache`: input features of the remote nodes that this rank requests most, fetched once and kept.

Features don't change, unless an encoder of texts is trained: then the cache is filled anew with its new vectors. So a
kept row has the bits of one that is fetched. Nodes are kept in order of degree: seed edges
meet a node in proportion to its degree, and a random walk that starts in proportion to degree stays so, hop after hop;
the fan-out changes that only for destinations that have fewer neighbours. `python -m benchmarks.cache` compares this
order with the best one.

Shape legend: C nodes kept, F features of a node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numba import njit

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import share_rows
from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.ranges import NodeRanges
from dist_gat.kernels.grouping import split
from dist_gat.kernels.large_pages import large_zeros
from dist_gat.sampling.relabeller import Relabeller

NewArray = Callable[[tuple[int, ...], np.typing.DTypeLike], np.ndarray]
MAX_COUNTED = 1 << 18


class RequestCount:
    """How often remote nodes were requested, to compare a cache's hit rate with the best possible one.

    In a large graph, only every `stride`-th node ID is counted, so that memory stays bounded. Counts are exact and
    begin when the run is started or resumed. Where the cache keeps all remote nodes, requests are only added up.
    """

    def __init__(self, num_nodes: int, kept: np.ndarray) -> None:
        """num_nodes: of the graph. kept: int64 [C], the nodes that the cache holds."""
        self.stride = -(-num_nodes // MAX_COUNTED)
        self.counts = np.zeros(MAX_COUNTED, dtype=np.int32)
        self.num_kept = 0
        self.lock = Lock()
        self.kept = kept[kept % self.stride == 0] // self.stride

    def add(self, nodes: np.ndarray) -> None:
        """Count one request of distinct remote nodes, int64 [n]; several streams may call it at once."""
        with self.lock:
            _count(nodes, self.stride, self.counts)

    def add_kept(self, num_nodes: int) -> None:
        """Count a request of `num_nodes` nodes, where any cache of this size would have them all."""
        with self.lock:
            self.num_kept += num_nodes

    def read(self) -> tuple[int, int, int]:
        """Requests of the counted nodes; those that the cache answered; those that the best cache would have answered.

        The best cache holds as many rows, those that were requested most often, with hindsight.
        """
        with self.lock:
            best = np.partition(self.counts, -len(self.kept))[-len(self.kept) :] if len(self.kept) else self.kept
            counted = (self.counts.sum(), self.counts[self.kept].sum(), best.sum())
            requested, kept, best_kept = (self.num_kept + int(count) for count in counted)
        return requested, kept, best_kept


@njit(nogil=True, cache=True)
def _count(nodes, stride, counts):  # type: ignore[no-untyped-def]
    for node in nodes:
        if stride == 1:
            counts[np.uint64(node)] += 1
        elif node % stride == 0:
            counts[np.uint64(node // stride)] += 1


@dataclass(frozen=True)
class FeatureCache:
    """nodes: by node type, a table of its C nodes. rows: by node type, float32 [C, F], in its order.

    parts: by node type, float32 [n, F] of all nodes of each remote part, where every rank keeps all that is remote to
    it; there are no `nodes` then, and no requests to other ranks. Otherwise None.
    """

    nodes: dict[str, Relabeller]
    rows: dict[str, np.ndarray]
    requests: RequestCount
    parts: dict[str, dict[int, np.ndarray]] | None

    @property
    def is_whole(self) -> bool:
        return self.parts is not None

    def of_part(self, kind: str, number: int, num_wanted: int) -> np.ndarray | None:
        """The features of all nodes of a remote part, if they are kept; `num_wanted` then count as requested."""
        if self.parts is None:
            return None
        self.requests.add_kept(num_wanted)
        return self.parts[kind][number]

    def find(self, kind: str, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: positions among the kept nodes of distinct nodes of one type, int64 [n]; -1 for the others.

        Counts them as requested.
        """
        self.requests.add(nodes)
        return self.nodes[kind].find(nodes)


def fill_cache(
    prepared: PreparedGraph,
    channel: Channel,
    own_parts: range,
    is_remote: np.ndarray,
    cache_bytes: int,
    features: Callable[[np.ndarray, NewArray], dict[str, tuple[np.ndarray, np.ndarray]]],
) -> FeatureCache:
    """Fetch the features of the remote nodes of highest degree, through `features`, up to `cache_bytes`. Collective.

    Each rank tells the others its own nodes of highest degree, as many as could fit.
    """
    ranges, sizes = prepared.ranges, prepared.feature_sizes
    row_bytes = np.array([4 * sizes.get(kind, 0) for kind in ranges.node_types])
    most = cache_bytes // int(row_bytes[row_bytes > 0].min())
    own = by_degree(np.concatenate([degrees_of(prepared.parts[part], row_bytes > 0) for part in own_parts]))
    told = share_rows(torch.from_numpy(own[:most]), channel).numpy()
    nodes = by_degree(told[is_remote[ranges.part_of(told[:, 0])]])[:, 0]
    kept = nodes[np.cumsum(row_bytes[ranges.type_of(nodes)]) <= cache_bytes]
    remote = {kind: remote_nodes(ranges, is_remote, kind) for kind in sizes}
    num_remote = sum(len(range_of) for of_parts in remote.values() for range_of in of_parts.values())
    is_whole = not channel.sum(torch.tensor([num_remote - len(kept)], dtype=torch.float64)).item()
    requests = RequestCount(ranges.num_nodes, kept)
    if is_whole:
        kept.sort()
    # in large pages: batches meet these rows in any order
    found = features(kept, large_zeros)
    rows = {kind: of_kind for kind, (_, of_kind) in found.items()}
    if is_whole:
        # sorted, and in order of the parts, they are the parts' own arrays
        counts = {kind: [len(range_of) for range_of in of_parts.values()] for kind, of_parts in remote.items()}
        parts = {kind: dict(zip(remote[kind], split(rows[kind], counts[kind]), strict=True)) for kind in sizes}
        return FeatureCache({}, rows, requests, parts)
    tables = {kind: Relabeller(len(at), ranges.num_nodes) for kind, (at, _) in found.items()}
    for kind, (at, _) in found.items():
        tables[kind].add(kept[at])
    return FeatureCache(tables, rows, requests, None)


def remote_nodes(ranges: NodeRanges, is_remote: np.ndarray, kind: str) -> dict[int, range]:
    """The nodes of one type in each remote part."""
    return {int(part): ranges.nodes_of_type(int(part), kind) for part in np.flatnonzero(is_remote)}


def degrees_of(part: Part, has_features: np.ndarray) -> np.ndarray:
    """int64 [n, 2]: nodes of a part whose type has features (bool [T]), and their degrees."""
    nodes = part.first_node + np.arange(part.num_nodes)
    table = np.stack([nodes, np.diff(part.node_starts)], axis=1)
    return table[has_features[part.ranges.type_of(nodes)]]


def by_degree(table: np.ndarray) -> np.ndarray:
    """Rows (node, degree) in order of falling degree; equal ones by node, so that the graph alone decides."""
    return table[np.lexsort((table[:, 0], -table[:, 1]))]
