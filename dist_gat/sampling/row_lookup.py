"""`RowLookup`: a plan of which embedding rows move between ranks. It is made before the model needs the rows.

IDs don't depend on the model. So `plan_lookup` sends them early, in the background and on a channel of its own. Later
`lookup_rows` moves the rows: those of other ranks travel while this rank copies its own, and the gradients come back
the same way.

Shape legend: S nodes asked for, A of them of this rank, B of others, M rows that others ask of this rank,
O rows that this rank owns, U of them in use by any rank, E row size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.keys import send_keys
from dist_gat.graph.ranges import intervals_of
from dist_gat.kernels.copy_rows import add_rows, put_rows
from dist_gat.kernels.grouping import order_by_group, split
from dist_gat.sampling.movable import Movable
from dist_gat.sampling.ownership import Ownership
from dist_gat.sampling.relabeller import Relabeller


@dataclass(frozen=True)
class RowLookup(Movable):
    """All tensors are int64.

    own_at_A:    positions among S of this rank's own nodes.
    other_at_B:  positions among S of the nodes of others, by owner.
    used_U:      numbers of this rank's rows that any rank uses, each once; the first A are its own nodes', in order.
    asked_M:     numbers of the rows that others ask for, by asking rank.
    asked_at_M:  their positions among U.
    ask_counts, answer_counts: nodes asked of each rank, rows sent to each; 0 for this one.
    """

    own_at_A: Tensor
    other_at_B: Tensor
    used_U: Tensor
    asked_M: Tensor
    asked_at_M: Tensor
    ask_counts: tuple[int, ...]
    answer_counts: tuple[int, ...]


def plan_lookup(nodes_S: np.ndarray, ownership: Ownership, channel: Channel) -> RowLookup:
    """Tell the owners of distinct nodes, int64 [S], which rows will be requested. Collective, even with S = 0."""
    rank, first_node = channel.rank, ownership.first_node
    order, counts = order_by_group(intervals_of(ownership.starts, nodes_S), channel.world_size)
    before, own_at, behind = split(order, [sum(counts[:rank]), counts[rank], sum(counts[rank + 1 :])])
    other_at = np.concatenate([before, behind])
    ask_counts = [0 if owner == rank else count for owner, count in enumerate(counts)]
    received, answer_counts, _ = send_keys(nodes_S[other_at], ask_counts, channel, "rows")
    asked = received - first_node
    relabeller = Relabeller(len(own_at) + len(asked), ownership.num_nodes)
    relabeller.add(nodes_S[own_at] - first_node)
    asked_at = relabeller.add(asked)
    return RowLookup(
        torch.from_numpy(own_at),
        torch.from_numpy(other_at),
        torch.from_numpy(relabeller.nodes),
        torch.from_numpy(asked),
        torch.from_numpy(asked_at),
        tuple(ask_counts),
        tuple(answer_counts),
    )


def lookup_rows(table_OE: Tensor, lookup: RowLookup, channel: Channel) -> Tensor:
    """The rows of the S nodes, [S, E]; their gradient is sparse, with each row of the table once. Collective."""
    return _LookupRows.apply(table_OE, lookup, channel)


def take_rows(table_OE: Tensor, nodes_S: Tensor) -> Tensor:
    """The rows of distinct nodes, [S, E], where there is one rank; their gradient is sparse."""
    return _TakeRows.apply(table_OE, nodes_S)


class _TakeRows(torch.autograd.Function):
    """Unlike torch's embedding it has rows on their way before it reads them: each is a cache miss."""

    @staticmethod
    def forward(ctx: Any, table_OE: Tensor, nodes_S: Tensor) -> Tensor:
        ctx.nodes_S, ctx.shape = nodes_S, table_OE.shape
        rows_SE = table_OE.new_empty((len(nodes_S), table_OE.shape[1]))
        put_rows(table_OE, nodes_S, rows_SE, torch.arange(len(nodes_S), device=nodes_S.device))
        return rows_SE

    @staticmethod
    def backward(ctx: Any, gradient_SE: Tensor) -> tuple[Tensor, None]:
        return torch.sparse_coo_tensor(ctx.nodes_S[None], gradient_SE, ctx.shape, check_invariants=False), None


class _LookupRows(torch.autograd.Function):
    """Own rows are copied while those of others are on their way, in both directions."""

    @staticmethod
    def forward(ctx: Any, table_OE: Tensor, lookup: RowLookup, channel: Channel) -> Tensor:
        ctx.lookup, ctx.channel, ctx.shape = lookup, channel, table_OE.shape
        answers = channel.room(len(lookup.asked_M), table_OE)
        torch.index_select(table_OE, 0, lookup.asked_M, out=answers)
        wait = channel.start_rows(answers, list(lookup.answer_counts), list(lookup.ask_counts))
        num_own, num_others = len(lookup.own_at_A), len(lookup.other_at_B)
        rows_SE = table_OE.new_empty((num_own + num_others, table_OE.shape[1]))
        put_rows(table_OE, lookup.used_U[:num_own], rows_SE, lookup.own_at_A)
        for places, rows in zip(lookup.other_at_B.split(list(lookup.ask_counts)), wait(), strict=True):
            put_rows(rows, torch.arange(len(rows), device=rows.device), rows_SE, places)
        return rows_SE

    @staticmethod
    def backward(ctx: Any, gradient_SE: Tensor) -> tuple[Tensor, None, None]:
        lookup, num_own = ctx.lookup, len(ctx.lookup.own_at_A)
        sent = ctx.channel.room(len(lookup.other_at_B), gradient_SE)
        torch.index_select(gradient_SE, 0, lookup.other_at_B, out=sent)
        wait = ctx.channel.start_rows(sent, list(lookup.ask_counts), list(lookup.answer_counts))
        if num_own == len(lookup.used_U) == len(gradient_SE):
            # all nodes are this rank's, in their order, and nobody else asked for one
            wait()
            return (
                torch.sparse_coo_tensor(lookup.used_U[None], gradient_SE, ctx.shape, check_invariants=False),
                None,
                None,
            )
        gradient_UE = gradient_SE.new_empty((len(lookup.used_U), ctx.shape[1]))
        torch.index_select(gradient_SE, 0, lookup.own_at_A, out=gradient_UE[:num_own])
        gradient_UE[num_own:] = 0
        # a rank asks for a row at most once, so every sum is taken in the order of the ranks, on any device
        for asked, rows in zip(lookup.asked_at_M.split(list(lookup.answer_counts)), wait(), strict=True):
            add_rows(rows, gradient_UE, asked)
        return torch.sparse_coo_tensor(lookup.used_U[None], gradient_UE, ctx.shape, check_invariants=False), None, None
