"""`GraphStore`: the whole prepared graph as one rank sees it.

Parts on this host are read in place; the owners of the others are asked through the exchange. Every query
maps keys to the parts that hold the answer, so both ways run the same functions on the same arrays and
give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
import torch

from dist_gat.base.random import uniform
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.keys import send_keys
from dist_gat.exchange.route import share_rows
from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.ranges import ITEM, NodeRanges, intervals_of, parts_of_ranks
from dist_gat.kernels.copy_rows import copy_rows, take_rows
from dist_gat.kernels.grouping import group, order_by_group, split
from dist_gat.sampling.draws import HiddenEdges, sample_into, sample_rows
from dist_gat.sampling.feature_cache import FeatureCache, NewArray, fill_cache
from dist_gat.sampling.packing import count_types, pack

Distribution = Literal["uniform", "popularity"]
PartOf = Callable[[np.ndarray], np.ndarray]
# writes a part's answers to some keys to these places of the result
Answer = Callable[[Part, np.ndarray, np.ndarray, np.ndarray], None]
# from keys and how many came from each rank: a message with the answers, and how much of it goes to each
Reply = Callable[[np.ndarray, list[int]], tuple[np.ndarray, list[int]]]
# what a rank does while others are at their part of a question
Work = Callable[[], None]


@dataclass(frozen=True)
class Wanted:
    """Features of nodes of one type, int64 [n], on their way to rows, float32 [n, f].

    missing: of each rank, at which positions are nodes that it has to be asked for. copies: write all other rows.
    """

    nodes: np.ndarray
    rows: np.ndarray
    missing: list[np.ndarray]
    copies: list[Work]


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

        In order of the parts, so that rows are written one after the other, and their order does not depend on where
        parts are. new: makes the array of the rows.
        """
        if not self.prepared.feature_sizes:
            return {}
        num_types = len(self.ranges.node_types)
        at_of_cell = split(*order_by_group(self.ranges.cell_of(nodes), self.ranges.num_parts * num_types))
        found, wanted = {}, {}
        for kind, size in self.prepared.feature_sizes.items():
            at_of_part = at_of_cell[self.ranges.node_types.index(kind) :: num_types]
            at = np.concatenate(at_of_part)
            rows = new((len(at), size), np.float32)
            found[kind] = at, rows
            wanted[kind] = self._look_here(kind, nodes[at], [len(x) for x in at_of_part], rows)
        self._ask_features(wanted)
        return found

    def _look_here(self, kind: str, nodes: np.ndarray, counts: list[int], rows: np.ndarray) -> Wanted:
        """What of the features of nodes is here: int64, the first counts[0] of part 0, and so on."""
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
        of_rank = [np.concatenate(missing[first:last]) for first, last in pairwise(self.rank_starts)]
        return Wanted(nodes, rows, of_rank, copies)

    def _features_of(self, kind: str, number: int, num_wanted: int) -> np.ndarray | None:
        """float32 [n, f]: those of all nodes of a part and a type, where they are here; a cache counts those wanted."""
        if self.in_place[number]:
            return self.prepared.parts[number].features[kind]
        return None if self.cache is None else self.cache.of_part(kind, number, num_wanted)

    def _number_in(self, part: int, kind: str, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: the number of each node among those of its part and type."""
        return nodes - self.ranges.bounds[part, self.ranges.node_types.index(kind)]

    def _reply_features(self, kind: str, nodes: np.ndarray, rows: np.ndarray) -> None:
        """Write to rows, float32 [n, f], the features of int64 [n] nodes of this rank, in order of its parts."""
        # as good as sorted, for where parts begin
        starts = np.searchsorted(nodes, self.ranges.starts[self.own_parts.start : self.own_parts.stop + 1])
        for number, (start, stop) in zip(self.own_parts, pairwise(starts), strict=True):
            numbers = self._number_in(number, kind, nodes[start:stop])
            take_rows(self.prepared.parts[number].features[kind], numbers, rows[start:stop])

    def _ask_features(self, wanted: Mapping[str, Wanted]) -> None:
        """Write the rows of all types. What goes from one rank to another is sorted by type, in the order of `wanted`,
        the same on every rank.
        """
        copies = [copy for x in wanted.values() for copy in x.copies]
        if not self.exchanges or (self.cache is not None and self.cache.is_whole):
            _do(copies)
            return
        sizes = {kind: x.rows.shape[1] for kind, x in wanted.items()}
        missing = [[x.missing[rank] for x in wanted.values()] for rank in range(self.channel.world_size)]
        num_missing = [[len(places) for places in of_types] for of_types in missing]
        keys = [x.nodes[places] for of_types in missing for x, places in zip(wanted.values(), of_types, strict=True)]
        segments, answer_counts = pack(num_missing, sizes)

        def reply(received: np.ndarray, recv_counts: list[int]) -> tuple[np.ndarray, list[int]]:
            told_segments, told_counts = pack(count_types(received, recv_counts, sizes, self.ranges), sizes)
            told = np.empty(sum(told_counts), np.float32)
            for x in told_segments:
                self._reply_features(x.kind, received[x.keys], told[x.numbers].reshape(-1, sizes[x.kind]))
            return told, told_counts

        send_counts = [sum(of_types) for of_types in num_missing]
        answers = self._consult("features", np.concatenate(keys), send_counts, answer_counts, reply, copies)
        if answers is None:
            return
        for x, places in zip(segments, [places for of_types in missing for places in of_types], strict=True):
            rows = answers[x.numbers].reshape(-1, sizes[x.kind])
            copy_rows(rows, np.arange(len(rows)), wanted[x.kind].rows, places)

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
        own = partial(self._answer_groups, keys, dict(zip(here.tolist(), members, strict=True)), answer, out)
        if not self.exchanges:
            own()
            return out

        def reply(received: np.ndarray, recv_counts: list[int]) -> tuple[np.ndarray, list[int]]:
            told = np.empty((len(received), *out.shape[1:]), sent_as)
            self._answer(received, part_of(received), answer, told)
            return told, recv_counts

        answers = self._consult(question, keys[there], send_counts, send_counts, reply, [own])
        if answers is not None:
            copy_rows(answers, np.arange(len(there)), out, there)
        return out

    def _consult(
        self,
        question: str,
        keys: np.ndarray,
        send_counts: list[int],
        answer_counts: list[int],
        reply: Reply,
        meanwhile: Iterable[Work],
    ) -> np.ndarray | None:
        """The owners' answers to keys, the first send_counts[0] of them for rank 0, and so on; None where nobody asks.

        answer_counts: how much of the answers comes from each rank. meanwhile: done while they are on their way.
        Collective.
        """
        received, recv_counts, is_empty = send_keys(keys, send_counts, self.channel, question)
        if is_empty:
            _do(meanwhile)
            return None
        told, told_counts = reply(received, recv_counts)
        wait = self.channel.start_all_to_all(torch.from_numpy(told), told_counts, answer_counts)
        _do(meanwhile)
        return wait().numpy()

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
        self._answer_groups(keys, dict(enumerate(group(parts, len(self.prepared.parts)))), answer, out)

    def _answer_groups(
        self, keys: np.ndarray, places_of_part: Mapping[int, np.ndarray], answer: Answer, out: np.ndarray
    ) -> None:
        """places_of_part: by number of the part, the positions of its keys."""
        for number, places in places_of_part.items():
            if len(places):
                answer(self.prepared.parts[number], keys[places], out, places)


def _do(works: Iterable[Work]) -> None:
    for work in works:
        work()


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
        # a step asks for far fewer
        channel.rooms.clear()
    return store
