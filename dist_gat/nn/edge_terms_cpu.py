"""`sum_terms`: the terms of edges on the CPU, in one pass over the edges and one backward.

Edges are cut into tasks whose number their count alone fixes, and the gradients of tasks are added in order: the bits
are the same for any number of threads.

Shape legend: e edges, R rows of the table, H heads, C tasks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.kernels import edge_terms_numba as kernels
from dist_gat.kernels.edge_terms_numba import EdgeColumns, TablePlaces
from dist_gat.kernels.lanes import known
from dist_gat.kernels.threads import cut, in_threads

EDGES_PER_TASK, MOST_TASKS = 1 << 14, 16


def sum_terms(
    table_RH: Tensor, columns: EdgeColumns, places: TablePlaces, num_categories: np.ndarray, num_edges: int
) -> Tensor:
    """[e, H]; the gradient goes to the table. num_categories: int64, by edge type."""
    assert kernels.are_inside(columns, num_categories), "an edge of a type or category that there is none of"
    return _SumTerms.apply(table_RH, columns, places, num_edges)


class _SumTerms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_RH: Tensor, columns: EdgeColumns, places: TablePlaces, num_edges: int) -> Tensor:
        out_EH = table_RH.new_empty(num_edges, table_RH.shape[1])
        table, out = table_RH.detach().numpy(), out_EH.numpy()
        heads = known(out.shape[1])

        def task(part: slice) -> None:
            kernels.add_terms(columns, places, kernels.LOG_RANKS, table, out, part.start, part.stop, heads)

        in_threads(task, cut(num_edges, EDGES_PER_TASK))
        ctx.columns, ctx.places, ctx.shape = columns, places, table_RH.shape
        return out_EH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_EH: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, num_edges = gradient_EH.contiguous().numpy(), len(gradient_EH)
        per_task = max(EDGES_PER_TASK, -(-num_edges // MOST_TASKS))
        work = cut(num_edges, per_task)
        sums_CRH = gradient_EH.new_zeros(len(work), *ctx.shape)
        sums, heads = sums_CRH.numpy(), known(gradient.shape[1])

        def task(part: slice) -> None:
            own = sums[part.start // per_task]
            kernels.add_gradients(
                ctx.columns, ctx.places, kernels.LOG_RANKS, gradient, own, part.start, part.stop, heads
            )

        in_threads(task, work)
        return sums_CRH.sum(dim=0), None, None, None
