"""Rows and gradients through a planned lookup, against one table; what travels, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WIDTHS, Ranks, ranking_sampler

from dist_gat.config.sections import NegativesConfig, SamplingConfig
from dist_gat.exchange.channel import open_channel, share_memory
from dist_gat.exchange.keys import HEADER
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.ranges import NodeRanges
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.ownership import Ownership
from dist_gat.sampling.row_lookup import lookup_rows, plan_lookup

CPU = torch.device("cpu")
STARTS = np.array([0, 6, 6, 15, 20])  # one rank of four owns nothing
SIZE, ID_BYTES = 3, 8
NEGATIVES = NegativesConfig(num_shared=40, num_per_seed=2, in_batch=True, distribution="popularity")


def starts_of(world_size: int) -> np.ndarray:
    return np.append(STARTS[:world_size], STARTS[-1])


def nodes_of(rank: int, world_size: int) -> np.ndarray:
    """Distinct nodes in any order; the last rank asks for nothing."""
    count = 0 if rank == world_size - 1 > 0 else 13
    return np.random.default_rng(rank).permutation(STARTS[-1])[:count]


def table() -> torch.Tensor:
    return torch.randn(int(STARTS[-1]), SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def look_up(world_size: int, shares: bool) -> dict[str, Any]:
    planned, rows = open_channel("planned", CPU, 30), open_channel("rows", CPU, 30)
    if shares:
        share_memory(rows)
        assert (rows.shared is None) == (world_size == 1)
    starts = starts_of(world_size)
    nodes = nodes_of(rows.rank, world_size)
    lookup = plan_lookup(nodes, Ownership(starts, rows.rank), planned).to(CPU)
    assert rows.traffic.sent_bytes == 0, "IDs go ahead, on a channel of their own"
    weight = table()[starts[rows.rank] : starts[rows.rank + 1]].clone().requires_grad_()
    found = lookup_rows(weight, lookup, rows)
    assert torch.equal(found, table()[nodes])
    (found**3 * torch.from_numpy(nodes + 1)[:, None]).sum().backward()
    assert weight.grad is not None
    used = weight.grad._indices()[0]
    assert len(used.unique()) == len(used)
    return {
        "gradient": weight.grad.to_dense(),
        "id_bytes": planned.traffic.sent_bytes,
        "row_bytes": rows.traffic.sent_bytes,
    }


@pytest.mark.parametrize("shares", [True, False], ids=["memory", "sockets"])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_rows_come_and_their_gradients_go_home(ranks: Ranks, world_size: int, shares: bool) -> None:
    results = ranks.run(world_size, look_up, world_size, shares)
    weight, starts = table().requires_grad_(), starts_of(world_size)
    remote = 0
    for rank in range(world_size):
        nodes = nodes_of(rank, world_size)
        remote += int(((nodes < starts[rank]) | (nodes >= starts[rank + 1])).sum())
        (weight[nodes] ** 3 * torch.from_numpy(nodes + 1)[:, None]).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(torch.cat([x["gradient"] for x in results]), weight.grad, rtol=1e-12, atol=0)
    headers = world_size * (world_size - 1) * HEADER
    assert sum(x["id_bytes"] for x in results) == ID_BYTES * (remote + headers)
    assert sum(x["row_bytes"] for x in results) == 2 * 8 * SIZE * remote, "there and back, and own rows stay at home"


def sample_and_count(folder: Path, fanouts: list[int], cache_bytes: int) -> dict[str, Any]:
    channel = open_channel("sampling", CPU, 30)
    prepared = open_prepared(folder)
    sampling = SamplingConfig(fanouts=fanouts, access="exchange")
    store = open_store(prepared, channel, "exchange", cache_bytes=cache_bytes)
    before = channel.traffic.sent_bytes
    batch = ranking_sampler(store, sampling, NEGATIVES, 50, 3, True).sample(store, torch.tensor([0, 0]))
    return {"batch": batch, "sent": channel.traffic.sent_bytes - before}


def distinct_bytes(batch: Batch, rank: int, ranges: NodeRanges, rank_starts: np.ndarray, fanouts: list[int]) -> int:
    """What a rank's questions and their answers take where no ID is asked for twice, features without a cache."""

    def remote(nodes: torch.Tensor) -> int:
        assert len(nodes) == len(nodes.unique())
        return int((np.searchsorted(rank_starts, nodes.numpy(), side="right") - 1 != rank).sum())

    nodes = batch.nodes_S
    frontiers = [nodes[: block.num_dst] for block in reversed(batch.blocks)]
    total = sum(
        remote(frontier) * (ID_BYTES + 4 * fan_out) for frontier, fan_out in zip(frontiers, fanouts, strict=True)
    )
    total += remote(nodes) * ID_BYTES * 2  # in-degrees
    total += remote(nodes) * ID_BYTES  # of the lookup, whose rows travel later
    for kind, (at, _) in batch.features.items():
        total += remote(nodes[at]) * (ID_BYTES + 4 * WIDTHS[kind])
    return total


def test_no_id_is_asked_for_twice(synthetic: PreparedGraph, ranks: Ranks) -> None:
    fanouts = [4, 3]
    results = ranks.run(2, sample_and_count, synthetic.folder, fanouts, 0)
    starts = synthetic.ranges.starts[[0, 2]]
    asked = sum(distinct_bytes(x["batch"], rank, synthetic.ranges, starts, fanouts) for rank, x in enumerate(results))
    # told without a question: the pairs of the step and their times, shared negatives and
    # the degrees of the offered rows, to one other rank
    told = ID_BYTES * (3 * 50 + 40 + sum(results[0]["batch"].seeds.candidates.offered_counts))
    # the seeds' own negatives are draws by number: those that fall on the other rank are a question and an answer
    own = sum(
        (ID_BYTES + 4) * int((np.searchsorted(starts, x["batch"].seeds.own_BK.numpy(), side="right") - 1 != rank).sum())
        for rank, x in enumerate(results)
    )
    # from each rank to the other: two hops, degrees, negatives, features, rows
    headers = 2 * 6 * HEADER * ID_BYTES
    assert sum(x["sent"] for x in results) == asked + told + own + headers


def test_every_offered_row_is_another_item(synthetic: PreparedGraph, ranks: Ranks) -> None:
    for result in ranks.run(2, sample_and_count, synthetic.folder, [4], 0):
        candidates = result["batch"].seeds.candidates
        offered = result["batch"].nodes_S[candidates.offered_at_M]
        assert len(offered) == len(offered.unique()) < 45, "popular items are drawn more than once"
        assert len(candidates.item_C) == len(candidates.item_C.unique()) == sum(candidates.offered_counts) < 40 + 50
        assert candidates.num_drawn_C.sum() == 40 + 50
