"""`NodeFeatures`: the input features of any nodes, from parts in place, from the cache, or from their owners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from dist_gat.graph.ranges import NodeRanges
from dist_gat.kernels.copy_rows import copy_rows, take_rows
from dist_gat.kernels.grouping import order_by_group, split
from dist_gat.sampling.feature_cache import FeatureCache, NewArray
from dist_gat.sampling.packing import count_types, pack
from dist_gat.sampling.transport import Transport, Work, do


@dataclass(frozen=True)
class Wanted:
    """Nodes of one type, int64 [n], whose features are written to rows, float32 [n, f].

    missing: for each rank, the positions of nodes to request from it. copies: the work that writes all other rows.
    """

    nodes: np.ndarray
    rows: np.ndarray
    missing: list[np.ndarray]
    copies: list[Work]


@dataclass(frozen=True)
class NodeFeatures:
    """cache: of remote nodes, or None."""

    transport: Transport
    cache: FeatureCache | None

    @property
    def ranges(self) -> NodeRanges:
        return self.transport.prepared.ranges

    def fetch(self, nodes: np.ndarray, new: NewArray = np.empty) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By node type with input features: positions among distinct nodes, int64 [n], and rows, float32 [n, f].

        Rows are in the order of the parts, so that they are written one after the other, and in an order that does not
        depend on where parts are. new: makes the array of the rows.
        """
        if not self.transport.prepared.feature_sizes:
            return {}
        num_types = len(self.ranges.node_types)
        at_of_cell = split(*order_by_group(self.ranges.cell_of(nodes), self.ranges.num_parts * num_types))
        found, wanted = {}, {}
        for kind, size in self.transport.prepared.feature_sizes.items():
            at_of_part = at_of_cell[self.ranges.index_of(kind) :: num_types]
            at = np.concatenate(at_of_part)
            rows = new((len(at), size), np.float32)
            found[kind] = at, rows
            wanted[kind] = self._look_here(kind, nodes[at], [len(x) for x in at_of_part], rows)
        self._ask(wanted)
        return found

    def _look_here(self, kind: str, nodes: np.ndarray, counts: list[int], rows: np.ndarray) -> Wanted:
        """Divides int64 nodes, the first counts[0] of part 0, and so on, into local and missing ones."""
        first_of_part, missing = [0, *accumulate(counts)], [np.zeros(0, np.int64)] * self.ranges.num_parts
        copies: list[Work] = []
        for number in range(self.ranges.num_parts):
            there = slice(first_of_part[number], first_of_part[number + 1])
            if there.start == there.stop:
                continue
            of_part = self._features_of(kind, number, there.stop - there.start)
            if of_part is not None:
                copies.append(partial(take_rows, of_part, self._number_in(number, kind, nodes[there]), rows[there]))
            elif self.cache is None:
                missing[number] = np.arange(there.start, there.stop)
            else:
                in_cache = self.cache.find(kind, nodes[there])
                kept = np.flatnonzero(in_cache >= 0)
                copies.append(partial(copy_rows, self.cache.rows[kind], in_cache[kept], rows[there], kept))
                missing[number] = there.start + np.flatnonzero(in_cache < 0)
        of_rank = [np.concatenate(missing[first:last]) for first, last in pairwise(self.transport.rank_starts)]
        return Wanted(nodes, rows, of_rank, copies)

    def _features_of(self, kind: str, number: int, num_wanted: int) -> np.ndarray | None:
        """float32 [n, f]: of all nodes of a part and a type, or None. A cache counts `num_wanted` as requested."""
        if self.transport.in_place[number]:
            return self.transport.prepared.parts[number].features[kind]
        return None if self.cache is None else self.cache.of_part(kind, number, num_wanted)

    def _number_in(self, part: int, kind: str, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: the number of each node among those of its part and type."""
        return nodes - self.ranges.bounds_of(kind)[part, 0]

    def _reply(self, kind: str, nodes: np.ndarray, rows: np.ndarray) -> None:
        """Write to rows, float32 [n, f], the features of int64 [n] nodes of this rank, in order of its parts."""
        # nodes are in the order of their parts, which suffices to find where each part begins
        own = self.transport.own_parts
        starts = np.searchsorted(nodes, self.ranges.starts[own.start : own.stop + 1])
        for number, (start, stop) in zip(own, pairwise(starts), strict=True):
            numbers = self._number_in(number, kind, nodes[start:stop])
            take_rows(self.transport.prepared.parts[number].features[kind], numbers, rows[start:stop])

    def _ask(self, wanted: Mapping[str, Wanted]) -> None:
        """Write the rows of all types. Each message is sorted by type, in the order of `wanted`, which is the same on
        every rank.
        """
        copies = [copy for x in wanted.values() for copy in x.copies]
        if not self.transport.exchanges or (self.cache is not None and self.cache.is_whole):
            do(copies)
            return
        sizes = {kind: x.rows.shape[1] for kind, x in wanted.items()}
        missing = [[x.missing[rank] for x in wanted.values()] for rank in range(self.transport.channel.world_size)]
        num_missing = [[len(places) for places in of_types] for of_types in missing]
        keys = [x.nodes[places] for of_types in missing for x, places in zip(wanted.values(), of_types, strict=True)]
        segments, answer_counts = pack(num_missing, sizes)

        def reply(received: np.ndarray, recv_counts: list[int]) -> tuple[np.ndarray, list[int]]:
            told_segments, told_counts = pack(count_types(received, recv_counts, sizes, self.ranges), sizes)
            told = np.empty(sum(told_counts), np.float32)
            for x in told_segments:
                self._reply(x.kind, received[x.keys], told[x.numbers].reshape(-1, sizes[x.kind]))
            return told, told_counts

        send_counts = [sum(of_types) for of_types in num_missing]
        answers = self.transport.consult("features", np.concatenate(keys), send_counts, answer_counts, reply, copies)
        if answers is None:
            return
        for x, places in zip(segments, [places for of_types in missing for places in of_types], strict=True):
            rows = answers[x.numbers].reshape(-1, sizes[x.kind])
            copy_rows(rows, np.arange(len(rows)), wanted[x.kind].rows, places)
