"""`GraphStore`: the whole prepared graph as one rank sees it.

Parts on this host are read in place; the owners of the others are asked through the exchange. Every query
maps keys to the parts that hold the answer, so both ways run the same functions on the same arrays and
give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.keys import send_keys
from dist_gat.exchange.route import share_rows
from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.ranges import ITEM, NodeRanges, intervals_of, parts_of_ranks
from dist_gat.grouping import group, order_by_group, split
from dist_gat.random import uniform
from dist_gat.sampling.cache import FeatureCache, NewArray, fill_cache
from dist_gat.sampling.copy_rows import copy_rows
from dist_gat.sampling.neighbors import HiddenEdges, sample_into, sample_rows
from dist_gat.sampling.packing import pack

Distribution = Literal["uniform", "popularity"]
PartOf = Callable[[np.ndarray], np.ndarray]
# writes a part's answers to some keys to these places of the result
Answer = Callable[[Part, np.ndarray, np.ndarray, np.ndarray], None]


@dataclass
class GraphStore:
    """in_place: bool [P], parts that this rank reads directly, its own among them. exchanges: whether any rank asks.

    The attribute `device` and the class's place as DGL's graph argument make it a graph storage for
    `dgl.dataloading.DataLoader`.
    """

    prepared: PreparedGraph
    channel: Channel
    in_place: np.ndarray
    exchanges: bool
    rank_starts: np.ndarray
    cache: FeatureCache | None = None
    device: torch.device = torch.device("cpu")

    @property
    def ranges(self) -> NodeRanges:
        return self.prepared.ranges

    @property
    def own_parts(self) -> range:
        return range(int(self.rank_starts[self.channel.rank]), int(self.rank_starts[self.channel.rank + 1]))

    def sample(self, nodes: np.ndarray, fan_out: int, key: np.uint64, hidden: HiddenEdges, hop: int = 0) -> np.ndarray:
        """int64 [n, fan_out]: up to `fan_out` in-neighbours of each node, -1 behind the last of a row.

        hop: tells calls apart that bring different numbers of nodes.
        """

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            sample_into(out, places, part.indptr, part.indices, part.first_node, keys, key, hidden)

        if len(self.prepared.parts) == 1:
            # nothing to sort by parts, and no rows to bring back in order
            part = self.prepared.parts[0]
            return sample_rows(part.indptr, part.indices, part.first_node, nodes, fan_out, key, hidden)
        out = np.empty((len(nodes), fan_out), np.int64)
        return self._ask(f"neighbors of hop {hop}", nodes, self.ranges.part_of, answer, out, self.ranges.id_type)

    def in_degree(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: in-degree of each node in the training graph."""

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            rows = keys - part.first_node
            out[places] = part.indptr[rows + 1] - part.indptr[rows]

        out = np.empty(len(nodes), np.int64)
        return self._ask("in-degrees", nodes, self.ranges.part_of, answer, out, np.int64)

    def features(self, nodes: np.ndarray, new: NewArray = np.empty) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each node type with input features: positions among distinct nodes, int64 [n], and rows, float32 [n, f].

        In order of the part where that is read in place, the others behind them, so that rows are written one after
        the other. new: makes the array of the rows.
        """
        here, place_of_part = self._places
        num_places, num_types = len(here) + 1, len(self.ranges.node_types)
        place_of_cell = np.minimum(place_of_part, len(here))[:, None] + num_places * np.arange(num_types)
        order, counts = order_by_group(place_of_cell.ravel()[self.ranges.cell_of(nodes)], num_places * num_types)
        bounds = [0, *accumulate(counts)]
        found, asked = {}, {}
        for kind, size in self.prepared.feature_sizes.items():
            node_type = self.ranges.node_types.index(kind)
            first, *ends = bounds[num_places * node_type :][: num_places + 1]
            at = order[first : ends[-1]]
            keys, rows, start = nodes[at], new((len(at), size), np.float32), 0
            answer = self._feature_answer(kind)
            for number, end in zip(here.tolist(), ends, strict=False):
                stop = end - first
                answer(self.prepared.parts[number], keys[start:stop], rows, np.arange(start, stop))
                start = stop
            left = np.arange(start, len(keys))
            if self.cache is not None:
                left = self.cache.fill(kind, keys, left, rows)
            found[kind], asked[kind] = (at, rows), (keys[left], left)
        if self.exchanges and not (self.cache is not None and self.cache.is_whole):
            self._ask_features(asked, {kind: rows for kind, (_, rows) in found.items()})
        return found

    def _feature_answer(self, kind: str) -> Answer:
        node_type = self.ranges.node_types.index(kind)

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            copy_rows(part.features[kind], keys - self.ranges.bounds[part.number, node_type], out, places)

        return answer

    def _ask_features(
        self, asked: Mapping[str, tuple[np.ndarray, np.ndarray]], found: Mapping[str, np.ndarray]
    ) -> None:
        """asked: nodes by type, int64, and where their features go in found[type]. Asks for all types at once.

        What goes from one rank to another is sorted by type, in the order of `asked`, the same on every rank.
        """
        sizes = {kind: self.prepared.feature_sizes[kind] for kind in asked}
        wanted, places = (np.concatenate(x) for x in zip(*asked.values(), strict=True))
        order, send_counts = order_by_group(self.rank_of(self.ranges.part_of(wanted)), self.channel.world_size)
        wanted, places = wanted[order], places[order]
        of_others, recv_counts, is_empty = send_keys(wanted, send_counts, self.channel, "features")
        if is_empty:
            return
        segments, told_counts = pack(of_others, recv_counts, sizes, self.ranges)
        told = np.empty(sum(told_counts), np.float32)
        for x in segments:
            keys, rows = of_others[x.keys], told[x.numbers].reshape(-1, sizes[x.kind])
            self._answer(keys, self.ranges.part_of(keys), self._feature_answer(x.kind), rows)
        segments, counts = pack(wanted, send_counts, sizes, self.ranges)
        answers = self.channel.all_to_all(torch.from_numpy(told), told_counts, counts).numpy()
        for x in segments:
            rows = answers[x.numbers].reshape(-1, sizes[x.kind])
            copy_rows(rows, np.arange(len(rows)), found[x.kind], places[x.keys])

    def edges(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """int64 [n, 2]: the (user, item) nodes of a split's edges, by numbers that are the same on every rank."""
        starts = self.prepared.edge_starts(split)

        def part_of(numbers: np.ndarray) -> np.ndarray:
            return np.searchsorted(starts, numbers, side="right") - 1

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            out[places] = part.edges[split][keys - starts[part.number]]

        return self._tell(numbers, part_of, answer, np.empty((len(numbers), 2), np.int64))

    def draw_items(
        self, distribution: Distribution, key: np.uint64, draws: np.ndarray, is_common: bool = False
    ) -> np.ndarray:
        """int64 [n]: the item of each draw number, from all items; two levels, a part and an item in it.

        is_common: the draws are the same on every rank, which spares the owners the question.
        """
        mass = self.item_mass(distribution)
        running = np.cumsum(mass)

        def part_of(draws: np.ndarray) -> np.ndarray:
            return np.minimum(np.searchsorted(running, uniform(key, draws) * running[-1], side="right"), len(mass) - 1)

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            items = self.ranges.nodes_of_type(part.number, ITEM)
            inside = uniform(key, keys) * running[-1] - (running[part.number] - mass[part.number])
            position = (
                np.searchsorted(part.popularity, inside, side="right") if distribution == "popularity" else inside
            )
            out[places] = items.start + np.clip(np.asarray(position, dtype=np.int64), 0, len(items) - 1)

        out = np.empty(len(draws), np.int64)
        if is_common:
            return self._tell(draws, part_of, answer, out)
        return self._ask("items", draws, part_of, answer, out, self.ranges.id_type)

    def item_mass(self, distribution: Distribution) -> np.ndarray:
        """float64 [P]: the share of each part in a distribution over items, not normalised."""
        if distribution == "popularity":
            return np.array(self.prepared.manifest["popularity_mass"], dtype=np.float64)
        bounds = self.ranges.bounds
        return (bounds[:, ITEM + 1] - bounds[:, ITEM]).astype(np.float64)

    def rank_of(self, parts: np.ndarray) -> np.ndarray:
        """int64 [n]: the rank that owns each part."""
        return intervals_of(self.rank_starts, parts)

    def _ask(
        self, question: str, keys: np.ndarray, part_of: PartOf, answer: Answer, out: np.ndarray, sent_as: type
    ) -> np.ndarray:
        """Answer keys in place where their part is here, and through its owner where it is not.

        question: see `send_keys`. out: int64, a row a key; returned. sent_as: an integer type that holds the answers.
        """
        here, place_of_part = self._places
        num_groups = len(here) + self.channel.world_size
        order, counts = order_by_group(place_of_part[part_of(keys)], num_groups)
        send_counts = counts[len(here) :]
        *members, there = split(order, [*counts[: len(here)], sum(send_counts)])
        self._answer_groups(keys, here, members, answer, out)
        if not self.exchanges:
            return out
        received, recv_counts, is_empty = send_keys(keys[there], send_counts, self.channel, question)
        if is_empty:
            return out
        told = np.empty((len(received), *out.shape[1:]), sent_as)
        self._answer(received, part_of(received), answer, told)
        answers = self.channel.all_to_all(torch.from_numpy(told), recv_counts, send_counts).numpy()
        copy_rows(answers, np.arange(len(there)), out, there)
        return out

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The L parts that are read in place, int64 [L]; of each part its place among them, or L + its owner."""
        here = np.flatnonzero(self.in_place)
        place_of_part = len(here) + self.rank_of(np.arange(self.ranges.num_parts))
        place_of_part[here] = np.arange(len(here))
        return here, place_of_part

    def _tell(self, keys: np.ndarray, part_of: PartOf, answer: Answer, out: np.ndarray) -> np.ndarray:
        """Answers to keys that are the same on every rank: nobody has to ask, each owner tells all others."""
        parts = part_of(keys)
        if not self.exchanges:
            self._answer(keys, parts, answer, out)
            return out
        owner = self.rank_of(parts)
        own = owner == self.channel.rank
        counts = np.bincount(owner, minlength=self.channel.world_size).tolist()
        told = np.empty((own.sum(), *out.shape[1:]), out.dtype)
        self._answer(keys[own], parts[own], answer, told)
        out[np.argsort(owner, kind="stable")] = share_rows(torch.from_numpy(told), self.channel, counts).numpy()
        return out

    def _answer(self, keys: np.ndarray, parts: np.ndarray, answer: Answer, out: np.ndarray) -> None:
        """Write the answers to keys, which belong to `parts`, to their rows of `out`."""
        num_parts = len(self.prepared.parts)
        self._answer_groups(keys, np.arange(num_parts), group(parts, num_parts), answer, out)

    def _answer_groups(
        self, keys: np.ndarray, numbers: np.ndarray, members: list[np.ndarray], answer: Answer, out: np.ndarray
    ) -> None:
        """members: of each part in `numbers`, the positions of its keys."""
        for number, places in zip(numbers.tolist(), members, strict=True):
            if len(places):
                answer(self.prepared.parts[number], keys[places], out, places)


def open_store(
    prepared: PreparedGraph,
    channel: Channel,
    access: Literal["auto", "exchange"],
    cache_bytes: int = 0,
) -> GraphStore:
    """See which parts are on this host, agree with the other ranks on whether to exchange, fill the cache. Collective.

    cache_bytes: for features of remote nodes; 0 keeps none.
    """
    num_parts = prepared.ranges.num_parts
    rank_starts = parts_of_ranks(num_parts, channel.world_size)
    own = range(int(rank_starts[channel.rank]), int(rank_starts[channel.rank + 1]))
    reads = [access == "auto" or number in own for number in range(num_parts)]
    in_place = np.array([is_read and part.folder.is_dir() for is_read, part in zip(reads, prepared.parts, strict=True)])
    missing = channel.sum(torch.tensor([float((~in_place).sum())])).item()
    store = GraphStore(prepared, channel, in_place, missing > 0, rank_starts)
    if store.exchanges and prepared.feature_sizes and cache_bytes:
        store.cache = fill_cache(prepared, channel, store.own_parts, ~in_place, cache_bytes, store.features)
    return store
