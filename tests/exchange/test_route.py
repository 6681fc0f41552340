"""The exchange on one, two and four gloo processes, against the same computation on one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import Ranks, same_on_all

from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.exchange.route import ask_owners, exchange, exchange_back, route_to, share_rows, sort_by_owner

CPU = torch.device("cpu")
NUM_NODES = 23
SIZE = 3
CASES = ("uneven", "one rank asks", "all ask one", "nobody asks")
every_world = pytest.mark.parametrize("world_size", [1, 2, 4])


def requests_of(case: str, rank: int, world_size: int) -> torch.Tensor:
    """Nodes that a rank asks for, in any order and with repetitions; the last rank of four owns none of 0 to 5."""
    generator = torch.Generator().manual_seed(100 * world_size + rank)
    count = {"uneven": 7 * rank, "one rank asks": 9 * (rank == 1), "all ask one": 5, "nobody asks": 0}[case]
    return torch.randint(0, 2 if case == "all ask one" else NUM_NODES, (count,), generator=generator)


def table() -> torch.Tensor:
    return torch.randn(NUM_NODES, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def owners_of(nodes: torch.Tensor, world_size: int) -> torch.Tensor:
    """Contiguous ranges of uneven length."""
    starts = torch.tensor([0, 4, 4 + 11, 22][:world_size])
    return torch.searchsorted(starts, nodes, right=True) - 1


def run_cases(world_size: int) -> dict[str, Any]:
    rank = dist.get_rank() if dist.is_initialized() else 0
    channel = open_channel("test", CPU, 30, None)
    assert (channel.rank, channel.world_size) == (rank, world_size)
    everyone = torch.arange(NUM_NODES)
    own = owners_of(everyone, world_size) == rank
    found: dict[str, Any] = {}
    for case in CASES:
        nodes = requests_of(case, rank, world_size)
        route = route_to(owners_of(nodes, world_size), channel)

        # there and back again is the identity, for numbers of any type and shape
        for rows in (nodes, torch.randn(len(nodes), SIZE), torch.randn(len(nodes), 2, 2), torch.ones(len(nodes), 0)):
            there = exchange(rows, route)
            assert there.dtype == rows.dtype
            assert torch.equal(exchange_back(there, route), rows)
        asked = exchange(nodes, route)
        assert (owners_of(asked, world_size) == rank).all()
        assert len(asked) == sum(route.recv_counts)
        asked_in_order = [requests_of(case, other, world_size) for other in range(world_size)]
        expected = torch.cat([them[owners_of(them, world_size) == rank] for them in asked_in_order])
        assert torch.equal(asked, expected), "grouped by the rank that asked, in its order"

        # a lookup, whose gradient goes home
        weight = table()[own].clone().requires_grad_()
        first = int(everyone[own][0])
        looked_up = exchange_back(weight[asked - first], route)
        assert torch.equal(looked_up, table()[nodes])
        (looked_up**3 * (nodes[:, None] + 1)).sum().backward()
        found[case] = weight.grad

        # the owners answer in their own words
        answers = ask_owners(nodes, owners_of(nodes, world_size), lambda keys: keys[:, None] * 10 + rank, channel)
        assert torch.equal(answers[:, 0], nodes * 10 + owners_of(nodes, world_size))
    found["shared"] = run_share_rows(channel)
    found["sums"] = run_sums(channel)
    return found


def run_share_rows(channel: Channel) -> list[np.ndarray]:
    """Rows of all ranks, and the gradient of this rank's; one rank has no rows."""
    counts = [2, 0, 3, 1]
    rows = torch.arange(counts[channel.rank] * 2.0).reshape(-1, 2) + 100 * channel.rank
    rows.requires_grad_()
    shared = share_rows(rows, channel)
    weight = torch.arange(shared.numel()).reshape(shared.shape) * (channel.rank + 1.0)
    (shared * weight).sum().backward()
    first = sum(counts[: channel.rank])
    factor = sum(range(1, channel.world_size + 1))
    expected = torch.arange(shared.numel()).reshape(shared.shape)[first : first + len(rows)] * float(factor)
    assert torch.equal(rows.grad, expected), "gradients of all ranks come home and are added"
    assert torch.equal(shared[first : first + len(rows)], rows)
    return [shared.detach().numpy()]


def run_sums(channel: Channel) -> list[Any]:
    values = torch.tensor([1.5, -channel.rank], dtype=torch.float64)
    total = channel.sum(values)
    assert values.tolist() == [1.5, -channel.rank], "the argument stays as it is"
    channel.barrier()
    counts = channel.sum(torch.tensor([channel.rank, 2**40]))
    assert (total.dtype, counts.dtype) == (torch.float64, torch.int64)
    return [total.tolist(), counts.tolist()]


@every_world
def test_rows_reach_their_owners_and_gradients_come_home(ranks: Ranks, world_size: int) -> None:
    results = ranks.run(world_size, run_cases, world_size)
    for case in CASES:
        weight = table().requires_grad_()
        for rank in range(world_size):
            nodes = requests_of(case, rank, world_size)
            (weight[nodes] ** 3 * (nodes[:, None] + 1)).sum().backward()
        gradient = torch.cat([result[case] for result in results])
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)
    shared = same_on_all([result["shared"] for result in results])[0]
    assert len(shared) == sum([2, 0, 3, 1][:world_size])
    sums = same_on_all([result["sums"] for result in results])
    ranks_below = world_size * (world_size - 1) // 2
    assert sums == [[1.5 * world_size, -ranks_below], [ranks_below, world_size * 2**40]]


def count_traffic() -> list[int]:
    channel = open_channel("traffic", CPU, 30, None)
    route = route_to(torch.tensor([0, 1, 1]), channel)
    before = channel.traffic.sent_bytes
    exchange(torch.zeros(3, 5, dtype=torch.float32), route)
    assert channel.traffic.seconds > 0
    return [channel.traffic.sent_bytes - before]


def test_traffic_counts_what_leaves_the_rank(ranks: Ranks) -> None:
    assert ranks.run(2, count_traffic) == [[2 * 5 * 4], [1 * 5 * 4]]


def test_one_rank_sends_nothing() -> None:
    channel = open_channel("alone", CPU, 30, None)
    rows = torch.randn(4, 2, requires_grad=True)
    route = route_to(torch.zeros(4, dtype=torch.int64), channel)
    back = exchange_back(exchange(rows, route), route)
    back.sum().backward()
    assert torch.equal(back, rows)
    assert torch.equal(rows.grad, torch.ones(4, 2))
    assert torch.equal(share_rows(rows, channel), rows)
    assert channel.traffic.sent_bytes == 0


@pytest.mark.parametrize("num_rows", [0, 1, 500])
def test_rows_are_sorted_by_owner_in_their_order(num_rows: int) -> None:
    owner = torch.randint(4, (num_rows,), generator=torch.Generator().manual_seed(0))
    order, inverse = sort_by_owner(owner, 5)
    assert torch.equal(order, torch.argsort(owner, stable=True))
    assert torch.equal(order[inverse], torch.arange(num_rows))
