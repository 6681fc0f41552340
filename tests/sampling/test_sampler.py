"""What a step samples: no leakage, the same for any number of ranks and either way of access, an epoch complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, Ranks, adjacency, ranking_sampler, split_pairs
from scipy.stats import chisquare

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import NegativesConfig, SamplingConfig
from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.loader import StepRange, load_batches, open_streams
from dist_gat.sampling.sampler import SeedBlockSampler

NEGATIVES = NegativesConfig(num_shared=10, num_per_seed=2, distribution="popularity", in_batch=True)
FANOUTS = [3, 4]
BATCH_SIZE = 50


def sampler_of(
    prepared: PreparedGraph, access: str = "auto", channel: Channel | None = None, **settings: Any
) -> SeedBlockSampler:
    sampling = SamplingConfig(fanouts=FANOUTS, access=access, **settings)
    store = open_store(prepared, channel or Channel("test"), sampling.access)
    return ranking_sampler(store, sampling, NEGATIVES, BATCH_SIZE, seed=3, needs_degree=True)


def sample(sampler: SeedBlockSampler, epoch: int, step: int) -> Batch:
    return sampler.sample(sampler.store, torch.tensor([epoch, step]))


def messages(batch: Batch) -> set[tuple[int, int, int]]:
    """(hop, destination, source) node IDs of every message of a batch; hop 0 is nearest to the seeds."""
    nodes = batch.nodes_S.numpy()
    found = set()
    for hop, block in enumerate(reversed(batch.blocks)):
        mask = block.mask_DF().numpy()
        dst = np.broadcast_to(nodes[: block.num_dst, None], mask.shape)[mask]
        src = nodes[block.neighbors_DF.numpy()[mask]]
        found |= {(hop, int(d), int(s)) for d, s in zip(dst, src, strict=True)}
    return found


def seeds(batch: Batch) -> list[tuple[int, int]]:
    users, items = (batch.nodes_S[at].tolist() for at in (batch.seeds.user_at_B, batch.seeds.item_at_B))
    return list(zip(users, items, strict=True))


def leaks(sampler: SeedBlockSampler) -> int:
    """Messages along a seed edge of their own step, in either direction, over two epochs."""
    count = 0
    for epoch in (0, 1):
        for step in range(sampler.source.steps_per_epoch):
            batch = sample(sampler, epoch, step)
            targets = {pair for user, item in seeds(batch) for pair in ((user, item), (item, user))}
            count += sum((dst, src) in targets for _, dst, src in messages(batch))
    return count


def test_seed_edges_and_their_reverses_carry_no_message(synthetic: PreparedGraph) -> None:
    assert leaks(sampler_of(synthetic)) == 0


def test_without_the_exclusion_they_would(synthetic: PreparedGraph) -> None:
    assert leaks(sampler_of(synthetic, exclude_targets=False)) > 100


def test_an_epoch_uses_every_training_edge_once_and_no_other(synthetic: PreparedGraph) -> None:
    sampler = sampler_of(synthetic)
    for epoch in (0, 5):
        used = [pair for step in range(sampler.source.steps_per_epoch) for pair in seeds(sample(sampler, epoch, step))]
        assert sorted(used) == sorted(map(tuple, split_pairs(synthetic, "train").tolist()))
    assert seeds(sample(sampler, 0, 0)) != seeds(sample(sampler, 5, 0))


def test_messages_are_edges_of_the_training_graph(synthetic: PreparedGraph) -> None:
    edges = set(zip(*adjacency(synthetic).nonzero(), strict=True))
    for step in range(3):
        found = messages(sample(sampler_of(synthetic), 0, step))
        assert len(found) > 200
        assert {(dst, src) for _, dst, src in found} <= edges


def test_blocks_nest_and_carry_degrees_and_features(synthetic: PreparedGraph) -> None:
    batch = sample(sampler_of(synthetic), 0, 0)
    outer, inner = batch.blocks
    assert outer.num_dst == inner.num_src
    assert outer.num_src == len(batch.nodes_S) == len(batch.nodes_S.unique())
    assert inner.neighbors_DF.shape[1] == FANOUTS[0]
    assert outer.neighbors_DF.shape[1] == FANOUTS[1]
    seed_nodes = set(range(inner.num_dst))
    found = batch.seeds
    positions = torch.cat([found.user_at_B, found.item_at_B, found.shared_at_N, found.own_at_BK.flatten()])
    assert set(positions.tolist()) == seed_nodes
    degree = np.asarray(adjacency(synthetic).sum(axis=1)).ravel()[batch.nodes_S.numpy()]
    assert outer.degree_SK is not None
    assert outer.degree_SK[:, 0].tolist() == degree.tolist()
    assert batch.degree_N is not None
    assert batch.degree_N.tolist() == degree[: inner.num_dst].tolist()
    for kind, (at, rows) in batch.features.items():
        nodes = batch.nodes_S[at].numpy()
        assert synthetic.ranges.is_of_type(nodes, kind).all()
        ids = dict(synthetic.ids(kind).select("node_id", "external_id").rows())
        expected = [int(ids[int(node)][1:]) for node in nodes]
        known = [number < 55 or kind == "user" for number in expected]
        assert rows[:, 0].tolist() == [1] * len(expected)
        numbers = [n if k else np.nan for n, k in zip(expected, known, strict=True)]
        np.testing.assert_array_equal(rows[:, 1].numpy(), np.array(numbers, np.float32))


def sampled_by_rank(folder: Path, access: str) -> list[dict[str, Any]]:
    """One rank's batches: seeds, messages and negatives by step."""
    channel = open_channel("sampling", torch.device("cpu"), 30)
    sampler = sampler_of(open_prepared(folder), access, channel)
    assert sampler.store.transport.exchanges == (access == "exchange" and channel.world_size > 1)
    found = []
    for step in range(4):
        batch = sample(sampler, 2, step)
        own = dict(zip(seeds(batch), batch.seeds.own_BK.tolist(), strict=True))
        candidates = batch.seeds.candidates
        found.append(
            {
                "own": own,
                "own_counts": dict(zip(seeds(batch), batch.seeds.log_count_BK.tolist(), strict=True)),
                "candidates": candidates.item_C.tolist(),
                "counts": dict(
                    zip(
                        candidates.item_C.tolist(),
                        zip(candidates.num_drawn_C.tolist(), candidates.log_count_C.tolist(), strict=True),
                        strict=True,
                    )
                ),
                "offered": batch.nodes_S[candidates.offered_at_M].tolist(),
                "offered_counts": candidates.offered_counts,
                "shared": batch.nodes_S[batch.seeds.shared_at_N].tolist(),
                "messages": messages(batch),
                "num_global_seeds": batch.num_global_seeds,
            }
        )
    return found


@pytest.mark.parametrize(("world_size", "access"), [(1, "exchange"), (2, "auto"), (2, "exchange"), (4, "exchange")])
def test_ranks_share_the_step_of_one(synthetic: PreparedGraph, ranks: Ranks, world_size: int, access: str) -> None:
    alone = sampled_by_rank(synthetic.folder, "auto")
    parted = ranks.run(world_size, sampled_by_rank, synthetic.folder, access)
    for step, whole in enumerate(alone):
        shares = [rank[step] for rank in parted]
        assert sum(len(share["own"]) for share in shares) == len(whole["own"]) == whole["num_global_seeds"]
        assert {pair: own for share in shares for pair, own in share["own"].items()} == whole["own"]
        assert [item for share in shares for item in share["shared"]] == whole["shared"]
        # a rank samples the neighbourhoods of its own seeds; what it samples for a node is what one rank would
        assert {message for share in shares for message in share["messages"]} == whole["messages"]
        assert {pair: c for share in shares for pair, c in share["own_counts"].items()} == whole["own_counts"]
        # every rank knows all candidates in the order of the offered rows, each item once
        assert tuple(len(share["offered"]) for share in shares) == shares[0]["offered_counts"]
        offered = [item for share in shares for item in share["offered"]]
        assert len(set(offered)) == len(offered)
        for share in shares:
            assert share["candidates"] == offered
            assert share["counts"] == whole["counts"]


@pytest.mark.parametrize(("prefetch", "num_streams"), [(True, 1), (False, 1), (True, 3), (False, 2)])
def test_dgls_loaders_give_the_sampler_s_batches_in_order(
    synthetic: PreparedGraph, prefetch: bool, num_streams: int
) -> None:
    sampler = sampler_of(synthetic, prefetch=prefetch)
    streams = [sampler_of(synthetic, prefetch=prefetch) for _ in open_streams(sampler.store, num_streams, 30)]
    batches = list(load_batches(streams, StepRange(1, 2, 6), torch.device("cpu")))
    assert [(batch.epoch, batch.step) for batch in batches] == [(1, step) for step in range(2, 6)]
    for batch in batches:
        again = sample(sampler, 1, batch.step)
        assert torch.equal(batch.nodes_S, again.nodes_S)
        assert messages(batch) == messages(again)


@pytest.mark.parametrize("num_streams", [1, 3])
def test_a_range_that_ends_early_ends_at_the_same_step_on_every_rank(
    synthetic: PreparedGraph, num_streams: int
) -> None:
    """What a rank may have sampled by then is sampled by all: two batches a stream, whatever the threads have done."""
    steps, seen = StepRange(0, 0, 1000), []
    for batch in load_batches([sampler_of(synthetic) for _ in range(num_streams)], steps, torch.device("cpu")):
        seen.append(batch.step)
        if batch.step == 4:
            steps.end_at(5, num_streams)
    assert seen == list(range(5 + 2 * num_streams))


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("graph", ["synthetic", "holed"])
def test_negatives_follow_their_distribution(request: pytest.FixtureRequest, graph: str, distribution: Any) -> None:
    prepared: PreparedGraph = request.getfixturevalue(graph)
    store = open_store(prepared, Channel("test"), "auto")
    num_draws = 40_000
    drawn = store.draw_targets(INTERACTS, distribution, make_key(1, Purpose.NEGATIVES), np.arange(num_draws))
    items = np.concatenate([prepared.ranges.nodes_of_type(p, ITEM) for p in range(prepared.ranges.num_parts)])
    counts = np.bincount(drawn, minlength=prepared.ranges.num_nodes)[items.astype(int)]
    assert counts.sum() == num_draws
    degree = store.in_degree(items.astype(np.int64)).astype(float)
    weight = np.ones(len(items)) if distribution == "uniform" else degree**0.75
    assert (counts[weight == 0] == 0).all()
    expected = (weight / weight.sum() * num_draws)[weight > 0]
    assert chisquare(counts[weight > 0], expected).pvalue > 1e-4


def test_the_expected_count_adds_all_samplers(synthetic: PreparedGraph) -> None:
    sampler = sampler_of(synthetic)
    in_batch = NEGATIVES.model_copy(update={"in_batch": True})
    negatives = ranking_sampler(sampler.store, sampler.sampling, in_batch, 50, 3, True).source.negatives
    items = np.flatnonzero(synthetic.ranges.is_of_type(np.arange(synthetic.ranges.num_nodes), ITEM))
    degree = sampler.store.in_degree(items)
    share = degree**0.75 / (degree**0.75).sum()
    expected = 12 * share + 50 * degree / degree.sum()
    assert np.exp(negatives.log_expected_count(degree, 50)) == pytest.approx(expected, rel=1e-5)


def test_a_rank_without_nodes_takes_part(empty_part: PreparedGraph, ranks: Ranks) -> None:
    assert 0 in np.diff(empty_part.ranges.starts)
    alone = sampled_by_rank(empty_part.folder, "auto")
    parted = ranks.run(4, sampled_by_rank, empty_part.folder, "exchange")
    for step, whole in enumerate(alone):
        shares = [rank[step] for rank in parted]
        assert {pair: own for share in shares for pair, own in share["own"].items()} == whole["own"]
        assert [item for share in shares for item in share["shared"]] == whole["shared"]
        assert {message for share in shares for message in share["messages"]} == whole["messages"]
