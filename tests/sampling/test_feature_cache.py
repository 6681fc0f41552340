"""The cache of remote features: what it keeps, that it changes no bit, what it saves, and its hit rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WIDTHS, Ranks, adjacency, ranking_sampler

from dist_gat.config.sections import NegativesConfig, SamplingConfig
from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.exchange.keys import HEADER
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.sampling import feature_cache as cache_module
from dist_gat.sampling.feature_cache import RequestCount
from dist_gat.sampling.graph_store import GraphStore, open_store

SOME = 4 * (3 * 10 + 2 * 10)
STEPS = 4


def kept_nodes(store: GraphStore) -> dict[str, np.ndarray]:
    assert store.cache is not None
    if store.cache.parts is None:
        return {kind: table.nodes.copy() for kind, table in store.cache.nodes.items()}
    found = {}
    for kind, parts in store.cache.parts.items():
        ranges = [store.ranges.nodes_of_type(part, kind) for part in parts]
        assert [len(rows) for rows in parts.values()] == [len(nodes) for nodes in ranges]
        found[kind] = np.concatenate([np.array(nodes) for nodes in ranges])
    return found


def run_with(folder: Path, cache_bytes: int, access: Any = "exchange") -> dict[str, Any]:
    """A rank's features of some steps, what it keeps, and its traffic for them."""
    channel = open_channel("sampling", torch.device("cpu"), 30)
    prepared = open_prepared(folder)
    store = open_store(prepared, channel, access, cache_bytes=cache_bytes)
    sampler = ranking_sampler(store, SamplingConfig(fanouts=[3, 3]), NegativesConfig(num_shared=10), 40, 3, False)
    before = channel.traffic.sent_bytes
    batches = []
    for step in range(STEPS):
        # no room beyond what is sent, so that bytes can be counted
        channel.rooms.clear()
        batches.append(sampler.sample(store, torch.tensor([0, step])))
    cache = store.cache
    return {
        "features": [batch.features for batch in batches],
        "nodes": [batch.nodes_S for batch in batches],
        "kept": kept_nodes(store) if cache else {},
        "bytes": sum(rows.nbytes for rows in cache.rows.values()) if cache else 0,
        "requests": cache.requests.read() if cache else None,
        "is_whole": cache is not None and cache.is_whole,
        "sent": channel.traffic.sent_bytes - before,
    }


def bits(rows: torch.Tensor) -> torch.Tensor:
    """Codes of categories stand in the bits, and some are those of NaN."""
    return rows.view(torch.int32)


@pytest.fixture(scope="module")
def without(synthetic: PreparedGraph, ranks: Ranks) -> list[dict[str, Any]]:
    return ranks.run(2, run_with, synthetic.folder, 0)


@pytest.mark.parametrize("cache_bytes", [1, SOME, 1 << 20], ids=["none fits", "some", "all"])
def test_features_are_the_same_to_the_bit_and_less_travels(
    synthetic: PreparedGraph, ranks: Ranks, without: list[dict[str, Any]], cache_bytes: int
) -> None:
    results = ranks.run(2, run_with, synthetic.folder, cache_bytes)
    starts = synthetic.ranges.starts[[0, 2, 4]]
    degree = np.asarray(adjacency(synthetic).sum(axis=1)).ravel()
    saved = 0
    for rank, (own, plain) in enumerate(zip(results, without, strict=True)):
        hits = requested = 0
        kept = np.concatenate(list(own["kept"].values()))
        others = np.r_[: starts[rank], starts[rank + 1] : starts[-1]]
        assert np.isin(kept, others).all(), "own nodes are not kept"
        assert own["bytes"] <= cache_bytes
        assert own["is_whole"] == (cache_bytes == 1 << 20)
        # no node that is kept has a lower degree than one that is not
        left = np.setdiff1d(others, kept)
        assert not len(left) or not len(kept) or degree[kept].min() >= degree[left].max()
        counts = np.zeros(len(degree), dtype=int)
        for mine, theirs, nodes in zip(own["features"], plain["features"], own["nodes"], strict=True):
            for kind in ("user", "item"):
                assert torch.equal(mine[kind][0], theirs[kind][0])
                assert torch.equal(bits(mine[kind][1]), bits(theirs[kind][1]))
                found = np.isin(nodes[mine[kind][0]].numpy(), own["kept"][kind])
                saved += int(found.sum()) * (8 + 4 * WIDTHS[kind])
            wanted = np.intersect1d(nodes.numpy(), others)
            counts[wanted] += 1
            requested += len(wanted)
            hits += int(np.isin(wanted, kept).sum())
        best = int(np.sort(counts)[::-1][: len(kept)].sum())
        assert own["requests"] == (requested, hits, best)
        assert hits <= best <= requested
        if cache_bytes == 1 << 20:
            assert hits == requested
    if cache_bytes == 1 << 20:
        saved += 2 * STEPS * HEADER * 8  # nobody asks
    assert sum(x["sent"] for x in without) - sum(x["sent"] for x in results) == saved
    assert (saved > 0) == (cache_bytes > 1)


def test_rows_come_in_the_order_of_the_parts_wherever_those_are(synthetic: PreparedGraph, ranks: Ranks) -> None:
    """Parts of others lie before and behind those of the ranks in the middle."""
    here, asked, cached, kept = (
        ranks.run(4, run_with, synthetic.folder, cache_bytes, access)
        for cache_bytes, access in ((0, "auto"), (0, "exchange"), (SOME, "exchange"), (1 << 20, "exchange"))
    )
    assert all(x["is_whole"] for x in kept)
    assert not any(x["is_whole"] for x in cached)
    for plain, *others in zip(here, asked, cached, kept, strict=True):
        for step, nodes in enumerate(plain["nodes"]):
            for kind, (at, rows) in plain["features"][step].items():
                part = synthetic.ranges.part_of(nodes[at].numpy())
                assert (np.diff(part) >= 0).all()
                assert len(np.unique(part)) == 4
                for other in others:
                    assert torch.equal(other["features"][step][kind][0], at)
                    assert torch.equal(bits(other["features"][step][kind][1]), bits(rows))


def test_there_is_no_cache_where_nothing_is_remote(synthetic: PreparedGraph, holed: PreparedGraph) -> None:
    for prepared, access, cache_bytes in (
        (synthetic, "auto", 1 << 20), (synthetic, "exchange", 0), (holed, "exchange", 1 << 20)
    ):  # fmt: skip
        assert open_store(prepared, Channel("test"), access, cache_bytes=cache_bytes).cache is None


def test_of_a_large_graph_every_so_many_th_node_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_COUNTED", 10)
    requests = RequestCount(32, np.array([20, 21, 28]))
    for nodes in ([16, 20, 21], [16, 24, 27], [16, 20, 31]):
        requests.add(np.array(nodes))
    # every fourth node: 16 three times, 20 twice, 24 once; 20 and 28 are kept, 16 and 20 would be best
    assert requests.read() == (6, 2, 5)
