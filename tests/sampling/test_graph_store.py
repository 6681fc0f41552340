"""The store's answers where some parts of others are read in place, against one rank that reads them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, USER, Ranks, prepare_synthetic

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import SamplingConfig
from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.ranges import NodeRanges, parts_of_ranks
from dist_gat.sampling.feature_cache import fill_cache
from dist_gat.sampling.graph_store import GraphStore, open_store
from dist_gat.sampling.hop_plan import plan_hops
from dist_gat.sampling.transport import Transport

# bytes of a cache: of a few remote nodes, and of more than there are
SOME, EVERYTHING = 300, 1 << 20


def nodes_of(rank: int, num_nodes: int) -> np.ndarray:
    """Distinct nodes in any order; the second rank asks for none."""
    return np.random.default_rng(rank).permutation(num_nodes)[: 0 if rank == 1 else 50 + 10 * rank]


def answers_of(store: GraphStore, nodes: np.ndarray) -> dict[str, Any]:
    (plan,) = plan_hops(store.prepared.schema, SamplingConfig(fanouts=[4]), ())
    return {
        "neighbors": store.sample(nodes, plan, make_key(5, Purpose.NEIGHBORS), {}).sources,
        "degree": store.in_degree(nodes),
        "features": store.features(nodes),
        "items": store.draw_targets(INTERACTS, "popularity", make_key(6, Purpose.NEGATIVES), nodes),
    }


def answer_between_hosts(folder: Path, kinds: tuple[str, ...], id_type: type, cache_bytes: int) -> dict[str, Any]:
    """As rank r of a cluster on whose host the part behind its own lies too; beside a cache, all on that of rank 0."""
    channel = open_channel("sampling", torch.device("cpu"), 30)
    prepared = with_features(open_prepared(folder), kinds)
    rank_starts = parts_of_ranks(prepared.ranges.num_parts, 4)
    rank_of_part = np.repeat(np.arange(4), np.diff(rank_starts))
    in_place = np.isin(rank_of_part, [channel.rank, (channel.rank + 1) % 4])
    in_place |= channel.rank == 0 and cache_bytes > 0
    store = GraphStore(Transport(prepared, channel, in_place, True, rank_starts))
    if cache_bytes:
        store.cache = fill_cache(prepared, channel, store.own_parts, ~in_place, cache_bytes, store.features)
        assert store.cache.is_whole == (cache_bytes == EVERYTHING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NodeRanges, "id_type", id_type)
        return answers_of(store, nodes_of(channel.rank, prepared.ranges.num_nodes))


def with_features(prepared: PreparedGraph, kinds: tuple[str, ...]) -> PreparedGraph:
    """As if no other types had features."""
    columns = {kind: prepared.manifest["columns"][kind] for kind in kinds}
    return replace(prepared, manifest=prepared.manifest | {"columns": columns})


@pytest.mark.parametrize(
    ("kinds", "id_type", "cache_bytes"),
    [
        (("user", "item"), np.int32, 0),
        (("item",), np.int64, 0),
        ((), np.int32, 0),
        (("user", "item"), np.int32, SOME),
        (("item",), np.int32, EVERYTHING),
        (("user", "item"), np.int32, EVERYTHING),
    ],
    ids=str,
)
def test_it_does_not_matter_where_parts_are(
    synthetic: PreparedGraph, ranks: Ranks, kinds: tuple[str, ...], id_type: type, cache_bytes: int
) -> None:
    hold_to_one_rank(synthetic, ranks, kinds, id_type, cache_bytes)


@pytest.mark.parametrize("cache_bytes", [0, SOME // 5, EVERYTHING])
def test_a_part_may_have_no_node_of_a_type(tmp_path: Path, ranks: Ranks, cache_bytes: int) -> None:
    prepared = prepare_synthetic(tmp_path, num_parts=8, method="hash", num_users=8, num_items=40)
    assert (prepared.ranges.counts(USER) == 0).any()
    hold_to_one_rank(prepared, ranks, ("user", "item"), np.int32, cache_bytes)


def hold_to_one_rank(
    prepared: PreparedGraph, ranks: Ranks, kinds: tuple[str, ...], id_type: type, cache_bytes: int
) -> None:
    alone = open_store(with_features(prepared, kinds), Channel("test"), "auto")
    results = ranks.run(4, answer_between_hosts, prepared.folder, kinds, id_type, cache_bytes)
    for rank, found in enumerate(results):
        nodes = nodes_of(rank, prepared.ranges.num_nodes)
        expected = answers_of(alone, nodes)
        for name in ("neighbors", "degree", "items"):
            assert found[name].dtype == np.int64
            np.testing.assert_array_equal(found[name], expected[name])
        assert found["features"].keys() == set(kinds)
        for kind in kinds:
            for mine, theirs in zip(found["features"][kind], expected["features"][kind], strict=True):
                assert mine.tobytes() == theirs.tobytes()  # codes of categories stand in the bits
            at = found["features"][kind][0]
            is_kind = prepared.ranges.is_of_type(nodes, kind)
            np.testing.assert_array_equal(np.sort(at), np.flatnonzero(is_kind))


def test_ids_take_32_bits_where_those_are_enough() -> None:
    assert NodeRanges(np.array([[0, 1, 2**31 - 1]]), (USER, ITEM)).id_type is np.int32
    assert NodeRanges(np.array([[0, 1, 2**31]]), (USER, ITEM)).id_type is np.int64
