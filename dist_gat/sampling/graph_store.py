"""`GraphStore`: the queries that one rank can make to the whole prepared graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dist_gat.base.random import uniform
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import SPLITS, Part, PreparedGraph
from dist_gat.graph.ranges import NodeRanges, parts_of_ranks
from dist_gat.graph.schema import Relation
from dist_gat.sampling.draws import NO_TIMES, HiddenEdges, hide_pairs, sample_into
from dist_gat.sampling.edge_draws import NO_LIMITS, count_before
from dist_gat.sampling.feature_cache import FeatureCache, NewArray, fill_cache
from dist_gat.sampling.hop_plan import HopPlan, SampledEdges
from dist_gat.sampling.instances import Instances
from dist_gat.sampling.node_features import NodeFeatures
from dist_gat.sampling.ownership import Ownership
from dist_gat.sampling.transport import PartOf, Transport

Distribution = Literal["uniform", "popularity"]
NOTHING_HIDDEN = hide_pairs(np.zeros((0, 2), np.int64))


@dataclass
class GraphStore:
    """transport: the way to the parts. cache: input features of remote nodes, or None.

    With the attribute `device`, DGL's `DataLoader` takes it as its graph.
    """

    transport: Transport
    cache: FeatureCache | None = None
    device: torch.device = torch.device("cpu")

    @property
    def prepared(self) -> PreparedGraph:
        return self.transport.prepared

    @property
    def channel(self) -> Channel:
        return self.transport.channel

    @property
    def ranges(self) -> NodeRanges:
        return self.prepared.ranges

    @property
    def own_parts(self) -> range:
        return self.transport.own_parts

    @property
    def ownership(self) -> Ownership:
        return Ownership(self.ranges.starts[self.transport.rank_starts], self.channel.rank)

    def sample(
        self, nodes: np.ndarray, plan: HopPlan, key: np.uint64, hidden: Mapping[str, HiddenEdges], hop: int = 0,
        instances: Instances | None = None,
    ) -> SampledEdges:  # fmt: skip
        """What the plan draws of the edges to each node, int64 [n]. hidden: by relation.

        instances: `nodes`, and the sources that come back, are those of these. hop: distinguishes calls with different
        numbers of nodes, for `send_keys`.
        """
        if plan.is_plain and instances is None:
            hides = hidden.get(plan.schema.edge_types[0].relation.name, NOTHING_HIDDEN)

            def sample_part(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
                times = part.edge_column("time") if len(hides.time) else NO_TIMES
                sample_into(out, places, part.indptr, part.indices, part.first_node, keys, key, hides, times)

            if len(self.prepared.parts) == 1:
                # nothing to sort by parts, and no rows to bring back in order
                drawn = np.empty((len(nodes), plan.width), np.int64)
                sample_part(self.prepared.parts[0], nodes, drawn, np.arange(len(nodes)))
                return SampledEdges(drawn, {})
            answer = sample_part
        else:
            hidden_slots = plan.hide(hidden, NOTHING_HIDDEN)

            def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
                limits = NO_LIMITS if instances is None else instances.limits_of(keys)
                own = keys if instances is None else instances.nodes(keys)
                plan.draw(part, own, limits, key, hidden_slots, out, places)

        out = np.empty((len(nodes), plan.width * (1 + len(plan.needs))), np.int64)
        self.transport.ask(f"neighbors of hop {hop}", nodes, self._part_of(instances), answer, out, self.ranges.id_type)
        found = plan.read(out)
        return found if instances is None else SampledEdges(instances.beside(nodes, found.sources), found.columns)

    def _part_of(self, instances: Instances | None) -> PartOf:
        if instances is None:
            return self.ranges.part_of
        return lambda keys: self.ranges.part_of(instances.nodes(keys))

    def degrees(self, nodes: np.ndarray, instances: Instances | None = None) -> np.ndarray:
        """int64 [n, K]: how many edges of each edge type lead to each node in the training graph, in the order of
        `Schema.into`; 0 behind them. instances: `nodes` are those of these, and see so many."""
        schema = self.prepared.schema
        width = max(1, *schema.slots)

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            own = keys if instances is None else instances.nodes(keys)
            rows = part.rows.of(own)
            if part.rows.is_plain:
                out[places, 0] = part.indptr[rows + 1] - part.indptr[rows]
            else:
                slots = np.array(part.rows.slots)[part.rows.type_of(own)]
                for slot in range(width):
                    has_slot = slots > slot
                    at = rows[has_slot] + slot
                    out[places[has_slot], slot] = part.indptr[at + 1] - part.indptr[at]
                    out[places[~has_slot], slot] = 0
            if instances is not None:
                kinds = part.rows.type_of(own)
                for number in np.flatnonzero(schema.has_time).tolist():
                    mine = np.flatnonzero(kinds == schema.node_types.index(schema.edge_types[number].target))
                    slot = schema.slot_of[number]
                    out[places[mine], slot] = count_before(
                        part.indptr, part.edge_column("time"), rows[mine] + slot, instances.limits_of(keys[mine])
                    )

        out = np.empty((len(nodes), width), np.int64)
        return self.transport.ask("in-degrees", nodes, self._part_of(instances), answer, out, np.int64)

    def in_degree(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: how many edges of the first edge type lead to each node: of users and items, interactions."""
        return self.degrees(nodes)[:, 0]

    def features(self, nodes: np.ndarray, new: NewArray = np.empty) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By node type with input features: positions among distinct nodes, int64 [n], and rows, float32 [n, f].

        See `NodeFeatures.fetch`.
        """
        return NodeFeatures(self.transport, self.cache).fetch(nodes, new)

    def pairs(self, relation: Relation, split: str, numbers: np.ndarray) -> np.ndarray:
        """int64 [n, 2]: (source, target) nodes of a relation's pairs, by numbers that are the same on every rank."""
        read = lambda part: part.pairs(relation, split)  # noqa: E731
        return self._told(relation, split, numbers, read, np.empty((len(numbers), 2), np.int64))

    def pair_times(self, relation: Relation, split: str, numbers: np.ndarray) -> np.ndarray:
        """int64 [n]: when the pairs of `pairs` were, in microseconds; of a relation that has times."""
        read = lambda part: part.times(relation, split)  # noqa: E731
        return self._told(relation, split, numbers, read, np.empty(len(numbers), np.int64))

    def pair_labels(self, relation: Relation, split: str, label: str, numbers: np.ndarray) -> np.ndarray:
        """float32 [n]: what was given of the pairs of `pairs`; of a relation that has this label."""
        read = lambda part: part.labels(relation, split, label)  # noqa: E731
        return self._told(relation, split, numbers, read, np.empty(len(numbers), np.float32))

    def _told(
        self, relation: Relation, split: str, numbers: np.ndarray, read: Callable[[Part], np.ndarray], out: np.ndarray
    ) -> np.ndarray:
        """What parts have of pairs with these numbers. read: that of all pairs of a part."""
        starts = self.prepared.pair_starts(relation, split)

        def part_of(numbers: np.ndarray) -> np.ndarray:
            return np.searchsorted(starts, numbers, side="right") - 1

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            out[places] = read(part)[keys - starts[part.number]]

        return self.transport.tell(numbers, part_of, answer, out)

    def own_labels(self, relation: Relation, split: str, label: str, numbers: np.ndarray) -> np.ndarray:
        """float32 [n]: what was given of pairs whose sources this rank owns."""
        starts = self.prepared.pair_starts(relation, split)
        labels = np.empty(len(numbers), np.float32)
        for part in self.own_parts:
            mine = (numbers >= starts[part]) & (numbers < starts[part + 1])
            given = self.prepared.parts[part].labels(relation, split, label)
            labels[mine] = given[numbers[mine] - starts[part]]
        return labels

    def draw_targets(
        self, relation: Relation, distribution: Distribution, key: np.uint64, draws: np.ndarray, is_common: bool = False
    ) -> np.ndarray:
        """int64 [n]: the target of a relation that each draw number draws, first its part and then the node in it.

        Where the split holds targets out, those without a training pair are never drawn: they would learn to be
        negative alone.

        is_common: the draws are the same on every rank, so owners send the targets without being asked.
        """
        mass = self.target_mass(relation, distribution)
        running = np.cumsum(mass)
        some_are_cold = self.prepared.cold_targets(relation) is not None

        def part_of(draws: np.ndarray) -> np.ndarray:
            return np.minimum(np.searchsorted(running, uniform(key, draws) * running[-1], side="right"), len(mass) - 1)

        def answer(part: Part, keys: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
            targets = self.ranges.nodes_of_type(part.number, relation.target)
            inside = uniform(key, keys) * running[-1] - (running[part.number] - mass[part.number])
            position = inside
            if distribution == "popularity":
                position = np.searchsorted(part.popularity(relation), inside, side="right")
            position = np.asarray(position, dtype=np.int64)
            if distribution == "uniform" and some_are_cold:
                trained = part.trained(relation.target)
                position = trained[np.clip(position, 0, len(trained) - 1)]
            out[places] = targets.start + np.clip(position, 0, len(targets) - 1)

        out = np.empty(len(draws), np.int64)
        if is_common:
            return self.transport.tell(draws, part_of, answer, out)
        return self.transport.ask("targets", draws, part_of, answer, out, self.ranges.id_type)

    def target_mass(self, relation: Relation, distribution: Distribution) -> np.ndarray:
        """float64 [P]: the share of each part in a distribution over a relation's targets, not normalised."""
        if distribution == "popularity":
            return self.prepared.popularity_mass(relation)
        if (cold := self.prepared.cold_targets(relation)) is not None:
            return np.array(cold[SPLITS[0]], dtype=np.float64)
        return self.ranges.counts(relation.target).astype(np.float64)


def read_ahead(store: GraphStore) -> None:
    """Have the parts that are read in place read from the disk ahead, where half of the host's memory holds them."""
    parts = [part for part, here in zip(store.prepared.parts, store.transport.in_place, strict=True) if here]
    size = sum(path.stat().st_size for part in parts for path in part.folder.rglob("*.npy"))
    if size <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        for part in parts:
            part.read_ahead()


def open_store(
    prepared: PreparedGraph,
    channel: Channel,
    access: Literal["auto", "exchange"],
    cache_bytes: int = 0,
) -> GraphStore:
    """Find the parts on this host, agree with the other ranks on whether to exchange, fill the cache. Collective.

    cache_bytes: for features of remote nodes; 0 keeps none.
    """
    num_parts = prepared.ranges.num_parts
    rank_starts = parts_of_ranks(num_parts, channel.world_size)
    own = range(int(rank_starts[channel.rank]), int(rank_starts[channel.rank + 1]))
    reads = [access == "auto" or number in own for number in range(num_parts)]
    in_place = np.array([is_read and prepared.is_here(number) for number, is_read in enumerate(reads)])
    missing = channel.sum(torch.tensor([float((~in_place).sum())])).item()
    store = GraphStore(Transport(prepared, channel, in_place, missing > 0, rank_starts))
    store.cache = new_cache(store, cache_bytes)
    return store


def new_cache(store: GraphStore, cache_bytes: int) -> FeatureCache | None:
    """A cache of the features of remote nodes as they are now, where there are any. Collective."""
    if not (store.transport.exchanges and store.prepared.feature_sizes and cache_bytes):
        return None
    fetch = NodeFeatures(store.transport, None).fetch
    cache = fill_cache(
        store.prepared, store.channel, store.own_parts, ~store.transport.in_place, cache_bytes, fetch
    )  # fmt: skip
    # a step requests far fewer rows than the cache has
    store.channel.rooms.clear()
    return cache
