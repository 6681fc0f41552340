"""`GraphStore`: the whole prepared graph as one rank sees it.

Parts on this host are read in place; the owners of the others are asked through the exchange. Every query
maps keys to the parts that hold the answer, so both ways run the same functions on the same arrays and
give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import ask_owners, share_rows
from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.ranges import ITEM, NodeRanges, parts_of_ranks
from dist_gat.random import uniform
from dist_gat.sampling.cache import FeatureCache, fill_cache
from dist_gat.sampling.neighbors import HiddenEdges, sample_rows

Distribution = Literal["uniform", "popularity"]
PartOf = Callable[[np.ndarray], np.ndarray]
Answer = Callable[[Part, np.ndarray], np.ndarray]


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
    pool: ThreadPoolExecutor | None = None
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

        def answer(part: Part, keys: np.ndarray) -> np.ndarray:
            return sample_rows(part.indptr, part.indices, part.first_node, keys, fan_out, key, hidden, self.pool)

        return self._ask(nodes, self.ranges.part_of, answer, np.zeros((0, fan_out), np.int64))

    def in_degree(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: in-degree of each node in the training graph."""

        def answer(part: Part, keys: np.ndarray) -> np.ndarray:
            rows = keys - part.first_node
            return part.indptr[rows + 1] - part.indptr[rows]

        return self._ask(nodes, self.ranges.part_of, answer, np.zeros(0, np.int64))

    def features(self, kind: str, nodes: np.ndarray) -> np.ndarray:
        """float32 [n, f]: the input features of nodes, all of which are of type `kind`."""
        node_type = self.ranges.node_types.index(kind)
        empty = np.zeros((0, self.prepared.feature_sizes[kind]), np.float32)

        def answer(part: Part, keys: np.ndarray) -> np.ndarray:
            return part.features[kind][keys - self.ranges.bounds[part.number, node_type]]

        def fetch(missing: np.ndarray) -> np.ndarray:
            return self._ask(missing, self.ranges.part_of, answer, empty)

        return fetch(nodes) if self.cache is None else self.cache.complete(kind, nodes, fetch)

    def edges(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """int64 [n, 2]: the (user, item) nodes of a split's edges, by numbers that are the same on every rank."""
        starts = self.prepared.edge_starts(split)

        def part_of(numbers: np.ndarray) -> np.ndarray:
            return np.searchsorted(starts, numbers, side="right") - 1

        def answer(part: Part, keys: np.ndarray) -> np.ndarray:
            return part.edges[split][keys - starts[part.number]]

        return self._tell(numbers, part_of, answer, np.zeros((0, 2), np.int64))

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

        def answer(part: Part, keys: np.ndarray) -> np.ndarray:
            items = self.ranges.nodes_of_type(part.number, ITEM)
            inside = uniform(key, keys) * running[-1] - (running[part.number] - mass[part.number])
            position = (
                np.searchsorted(part.popularity, inside, side="right") if distribution == "popularity" else inside
            )
            return items.start + np.clip(np.asarray(position, dtype=np.int64), 0, len(items) - 1)

        return (self._tell if is_common else self._ask)(draws, part_of, answer, np.zeros(0, np.int64))

    def item_mass(self, distribution: Distribution) -> np.ndarray:
        """float64 [P]: the share of each part in a distribution over items, not normalised."""
        if distribution == "popularity":
            return np.array(self.prepared.manifest["popularity_mass"], dtype=np.float64)
        bounds = self.ranges.bounds
        return (bounds[:, ITEM + 1] - bounds[:, ITEM]).astype(np.float64)

    def rank_of(self, parts: np.ndarray) -> np.ndarray:
        """int64 [n]: the rank that owns each part."""
        return np.searchsorted(self.rank_starts, parts, side="right") - 1

    def _ask(self, keys: np.ndarray, part_of: PartOf, answer: Answer, empty: np.ndarray) -> np.ndarray:
        """Answer keys in place where their part is here, and through its owner where it is not."""
        parts = part_of(keys)
        if not self.exchanges:
            return self._answer(keys, parts, answer, empty)
        here = self.in_place[parts]
        out = np.empty((len(keys), *empty.shape[1:]), dtype=empty.dtype)
        out[here] = self._answer(keys[here], parts[here], answer, empty)

        def answer_request(request: torch.Tensor) -> torch.Tensor:
            asked = request.numpy()
            return torch.from_numpy(self._answer(asked, part_of(asked), answer, empty))

        owner = torch.from_numpy(self.rank_of(parts[~here]))
        out[~here] = ask_owners(torch.from_numpy(keys[~here]), owner, answer_request, self.channel).numpy()
        return out

    def _tell(self, keys: np.ndarray, part_of: PartOf, answer: Answer, empty: np.ndarray) -> np.ndarray:
        """Answers to keys that are the same on every rank: nobody has to ask, each owner tells all others."""
        parts = part_of(keys)
        if not self.exchanges:
            return self._answer(keys, parts, answer, empty)
        owner = self.rank_of(parts)
        own = owner == self.channel.rank
        counts = np.bincount(owner, minlength=self.channel.world_size).tolist()
        told = torch.from_numpy(self._answer(keys[own], parts[own], answer, empty))
        out = np.empty((len(keys), *empty.shape[1:]), dtype=empty.dtype)
        out[np.argsort(owner, kind="stable")] = share_rows(told, self.channel, counts).numpy()
        return out

    def _answer(self, keys: np.ndarray, parts: np.ndarray, answer: Answer, empty: np.ndarray) -> np.ndarray:
        out = np.empty((len(keys), *empty.shape[1:]), dtype=empty.dtype)
        for part in np.flatnonzero(np.bincount(parts)):
            mine = np.flatnonzero(parts == part)
            out[mine] = answer(self.prepared.parts[part], keys[mine])
        return out


def open_store(
    prepared: PreparedGraph,
    channel: Channel,
    access: Literal["auto", "exchange"],
    num_threads: int = 1,
    cache_bytes: int = 0,
) -> GraphStore:
    """See which parts are on this host, agree with the other ranks on whether to exchange, fill the cache. Collective.

    cache_bytes: for features of remote nodes; 0 keeps none.
    """
    num_parts = prepared.ranges.num_parts
    rank_starts = parts_of_ranks(num_parts, channel.world_size)
    in_place = np.array([access == "auto" and part.folder.is_dir() for part in prepared.parts])
    missing = channel.sum(torch.tensor([float((~in_place).sum())])).item()
    pool = ThreadPoolExecutor(num_threads, "sampler") if num_threads > 1 else None
    store = GraphStore(prepared, channel, in_place, missing > 0, rank_starts, pool)
    if store.exchanges and prepared.feature_sizes and cache_bytes:
        store.cache = fill_cache(
            prepared, channel, store.own_parts, store.is_remote(), cache_bytes, store.features
        )  # fmt: skip
    return store
