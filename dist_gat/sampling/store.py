"""`GraphStore`: the whole prepared graph as one rank sees it.

Parts on this host are read in place; the owners of the others are asked through the exchange. Every query
maps keys to the parts that hold the answer, so both ways run the same functions on the same arrays and
give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import exchange, route_to, share_rows
from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.ranges import ITEM, NodeRanges, parts_of_ranks
from dist_gat.random import uniform
from dist_gat.sampling.cache import FeatureCache, fill_cache
from dist_gat.sampling.copy_rows import copy_rows
from dist_gat.sampling.neighbors import HiddenEdges, sample_rows

Distribution = Literal["uniform", "popularity"]
PartOf = Callable[[np.ndarray], np.ndarray]
# writes a part's answers to some keys to these places of the result
Answer = Callable[[Part, np.ndarray, np.ndarray, np.ndarray], None]


@dataclass
class GraphStore:
    """in_place: bool [P], parts that this rank reads directly. exchanges: whether any rank has to ask.

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

    def is_remote(self) -> np.ndarray:
        """bool [P]: parts whose rows cross to this rank from another."""
        remote = ~self.in_place
        remote[self.own_parts] = False
        return remote

    def sample(self, nodes: np.ndarray, fan_out: int, key: np.uint64, hidden: HiddenEdges) -> np.ndarray:
        """int64 [n, fan_out]: up to `fan_out` in-neighbours of each node, -1 behind the last of a row."""

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            out[places] = sample_rows(part.indptr, part.indices, part.first_node, keys, fan_out, key, hidden)

        if len(self.prepared.parts) == 1:
            # nothing to sort by parts, and no rows to bring back in order
            part = self.prepared.parts[0]
            return sample_rows(part.indptr, part.indices, part.first_node, nodes, fan_out, key, hidden)
        return self._ask(nodes, self.ranges.part_of, answer, np.empty((len(nodes), fan_out), np.int64))

    def in_degree(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: in-degree of each node in the training graph."""

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            rows = keys - part.first_node
            out[places] = part.indptr[rows + 1] - part.indptr[rows]

        return self._ask(nodes, self.ranges.part_of, answer, np.empty(len(nodes), np.int64))

    def features(self, kind: str, nodes: np.ndarray) -> np.ndarray:
        """float32 [n, f]: the input features of nodes, all of which are of type `kind`."""
        node_type = self.ranges.node_types.index(kind)
        out = np.empty((len(nodes), self.prepared.feature_sizes[kind]), np.float32)

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            copy_rows(part.features[kind], keys - self.ranges.bounds[part.number, node_type], out, places)

        missing = None if self.cache is None else self.cache.fill(kind, nodes, out)
        return self._ask(nodes, self.ranges.part_of, answer, out, missing)

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

        return (self._tell if is_common else self._ask)(draws, part_of, answer, np.empty(len(draws), np.int64))

    def item_mass(self, distribution: Distribution) -> np.ndarray:
        """float64 [P]: the share of each part in a distribution over items, not normalised."""
        if distribution == "popularity":
            return np.array(self.prepared.manifest["popularity_mass"], dtype=np.float64)
        bounds = self.ranges.bounds
        return (bounds[:, ITEM + 1] - bounds[:, ITEM]).astype(np.float64)

    def rank_of(self, parts: np.ndarray) -> np.ndarray:
        """int64 [n]: the rank that owns each part."""
        return np.searchsorted(self.rank_starts, parts, side="right") - 1

    def _ask(
        self, keys: np.ndarray, part_of: PartOf, answer: Answer, out: np.ndarray, at: np.ndarray | None = None
    ) -> np.ndarray:
        """Answer keys in place where their part is here, and through its owner where it is not.

        out: a row a key; returned. at: positions of the keys to answer, all of them by default.
        """
        at = np.arange(len(keys)) if at is None else at
        parts = part_of(keys[at])
        if not self.exchanges:
            return self._answer(keys, parts, answer, out, at)
        here = self.in_place[parts]
        self._answer(keys, parts[here], answer, out, at[here])
        there = at[~here]
        route = route_to(torch.from_numpy(self.rank_of(parts[~here])), self.channel)
        asked = exchange(torch.from_numpy(keys[there]), route).numpy()
        told = self._answer(asked, part_of(asked), answer, np.empty((len(asked), *out.shape[1:]), out.dtype))
        # answers come by owner; from there they go straight to their places
        answers = self.channel.all_to_all(torch.from_numpy(told), route.recv_counts, route.send_counts).numpy()
        copy_rows(answers, np.arange(len(there)), out, there[route.order.numpy()])
        return out

    def _tell(self, keys: np.ndarray, part_of: PartOf, answer: Answer, out: np.ndarray) -> np.ndarray:
        """Answers to keys that are the same on every rank: nobody has to ask, each owner tells all others."""
        parts = part_of(keys)
        if not self.exchanges:
            return self._answer(keys, parts, answer, out)
        owner = self.rank_of(parts)
        own = owner == self.channel.rank
        counts = np.bincount(owner, minlength=self.channel.world_size).tolist()
        told = self._answer(keys[own], parts[own], answer, np.empty((own.sum(), *out.shape[1:]), out.dtype))
        out[np.argsort(owner, kind="stable")] = share_rows(torch.from_numpy(told), self.channel, counts).numpy()
        return out

    def _answer(
        self, keys: np.ndarray, parts: np.ndarray, answer: Answer, out: np.ndarray, at: np.ndarray | None = None
    ) -> np.ndarray:
        """Write to out[at] the answers to keys[at], which belong to `parts`; at: all of them by default."""
        for part in np.flatnonzero(np.bincount(parts)):
            mine = np.flatnonzero(parts == part) if at is None else at[parts == part]
            answer(self.prepared.parts[part], keys[mine], out, mine)
        return out


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
    in_place = np.array([access == "auto" and part.folder.is_dir() for part in prepared.parts])
    missing = channel.sum(torch.tensor([float((~in_place).sum())])).item()
    store = GraphStore(prepared, channel, in_place, missing > 0, rank_starts)
    if store.exchanges and prepared.feature_sizes and cache_bytes:
        store.cache = fill_cache(
            prepared, channel, store.own_parts, store.is_remote(), cache_bytes, store.features
        )  # fmt: skip
    return store
