"""`sum_terms`: the terms of edges on the CPU, in one pass over the edges and one backward.

Edges are cut into tasks whose number their count alone fixes, and the gradients of tasks are added in order: the bits
are the same for any number of threads.

Shape legend: e edges, R rows of the table, H heads, C tasks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.kernels import edge_terms_numba as kernels
from dist_gat.kernels.threads import cut, in_threads

EDGES_PER_TASK, MOST_TASKS = 1 << 14, 16


class EdgeArrays(NamedTuple):
    """What `dist_gat.kernels.edge_terms_numba` reads, flat. Columns: int64 or float32 [e], or [0] where unread."""

    kind: np.ndarray
    category: np.ndarray
    weight: np.ndarray
    age: np.ndarray
    rank: np.ndarray
    first_rows: np.ndarray
    first_category: np.ndarray
    has_category: np.ndarray
    has_time: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    first: np.ndarray
    step: np.ndarray
    number: np.ndarray


def sum_terms(table_RH: Tensor, edges: EdgeArrays, num_categories: np.ndarray, num_edges: int) -> Tensor:
    """[e, H]; the gradient goes to the table."""
    inside = kernels.are_inside(edges.kind, edges.category, edges.first_category, num_categories, len(num_categories))
    assert inside, "an edge of a type or category that there is none of"
    return _SumTerms.apply(table_RH, edges, num_edges)


class _SumTerms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_RH: Tensor, edges: EdgeArrays, num_edges: int) -> Tensor:
        out_EH = table_RH.new_empty(num_edges, table_RH.shape[1])
        table, out = table_RH.detach().numpy(), out_EH.numpy()

        def task(part: slice) -> None:
            kernels.add_terms(*edges, kernels.LOG_RANKS, table, out, part.start, part.stop)

        in_threads(task, cut(num_edges, EDGES_PER_TASK))
        ctx.edges, ctx.shape = edges, table_RH.shape
        return out_EH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_EH: Tensor) -> tuple[Tensor, None, None]:
        gradient, num_edges = gradient_EH.contiguous().numpy(), len(gradient_EH)
        per_task = max(EDGES_PER_TASK, -(-num_edges // MOST_TASKS))
        work = cut(num_edges, per_task)
        sums_CRH = gradient_EH.new_zeros(len(work), *ctx.shape)
        sums = sums_CRH.numpy()

        def task(part: slice) -> None:
            kernels.add_gradients(
                *ctx.edges, kernels.LOG_RANKS, gradient, sums[part.start // per_task], part.start, part.stop
            )

        in_threads(task, work)
        return sums_CRH.sum(dim=0), None, None
