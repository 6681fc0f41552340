"""The one communication primitive: rows go to their owners, answers come back, gradients take the reverse way.

    route = route_to(owner_of_row, channel)
    at_owner = exchange(rows, route)             rows of all ranks, grouped by the rank that asked
    answer = exchange_back(rows_at_owner, route) in the order of the request

Both directions are differentiable; the backward of one is the other. Inference and evaluation use these calls; the
requests of a training step take fewer messages with `send_keys`. Callers request each ID once.

Shape legend: N requests of this rank, M requests that this rank received, R row size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dist_gat.exchange.channel import Channel
from dist_gat.kernels.grouping import order_by_group


@dataclass(frozen=True)
class Route:
    """Where N requests go: `order` sorts them by owner; how many go to and come from each rank."""

    channel: Channel
    order: Tensor
    inverse: Tensor
    send_counts: list[int]
    recv_counts: list[int]


def route_to(owner_N: Tensor, channel: Channel) -> Route:
    """Plan the exchange of N rows with the ranks that own them. Collective, even with N = 0."""
    counts = torch.bincount(owner_N, minlength=channel.world_size)
    order, inverse = sort_by_owner(owner_N, channel.world_size)
    return Route(channel, order, inverse, counts.tolist(), channel.all_to_all_counts(counts))


def sort_by_owner(owner_N: Tensor, num_owners: int) -> tuple[Tensor, Tensor]:
    """The stable order by owner and its inverse, int64 [N]."""
    if owner_N.device.type == "cpu":
        # few owners: counting is ten times as fast as sorting
        order = torch.from_numpy(order_by_group(owner_N.contiguous().numpy(), num_owners)[0])
    else:
        order = torch.argsort(owner_N, stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return order, inverse


def exchange(rows_NR: Tensor, route: Route) -> Tensor:
    """Send each row to its owner; returns the M rows received, by asking rank, in that rank's order."""
    return _AllToAll.apply(rows_NR.index_select(0, route.order), route.channel, route.send_counts, route.recv_counts)


def exchange_back(rows_MR: Tensor, route: Route) -> Tensor:
    """Send the M answers back; returns N rows in the order of the request."""
    answers_NR = _AllToAll.apply(rows_MR, route.channel, route.recv_counts, route.send_counts)
    return answers_NR.index_select(0, route.inverse)


def ask_owners(requests_N: Tensor, owner_N: Tensor, answer: Callable[[Tensor], Tensor], channel: Channel) -> Tensor:
    """Every owner answers the requests that it gets with one row each. Collective, even with N = 0."""
    route = route_to(owner_N, channel)
    return exchange_back(answer(exchange(requests_N, route)), route)


def share_rows(rows_NR: Tensor, channel: Channel, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all ranks, in rank order, on every rank. Differentiable: gradients return to their rank.

    counts: how many rows each rank has, where all of them know it, which saves one collective; else they ask.
    """
    if channel.group is None:
        return rows_NR
    count = rows_NR.shape[0]
    send_counts = [count] * channel.world_size
    recv_counts = channel.all_to_all_counts(torch.tensor(send_counts)) if counts is None else list(counts)
    assert recv_counts[channel.rank] == count, (recv_counts, count)
    repeats = (channel.world_size, *[1] * (rows_NR.dim() - 1))
    return _AllToAll.apply(rows_NR.repeat(repeats), channel, send_counts, recv_counts)


class _AllToAll(torch.autograd.Function):
    """all_to_all_single whose backward swaps what was sent with what was received."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, channel: Channel, send_counts: list[int], recv_counts: list[int]) -> Tensor:
        ctx.channel, ctx.counts = channel, (recv_counts, send_counts)
        received = channel.all_to_all(rows, send_counts, recv_counts)
        return received.view_as(received) if received is rows else received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.channel.all_to_all(gradient, *ctx.counts), None, None, None
