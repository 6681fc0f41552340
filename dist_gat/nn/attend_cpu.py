"""`attend` on the CPU: nogil numba kernels, and their own backward.

One pass over a destination's neighbours scores their rows, turns scores into weights and sums the rows while they
are in the first cache; nothing of the size [D, F, I] exists. The backward gathers again, by destination for the
gradients of weights, scores, query and bias; then each thread scatters to a range of sources of its own. Every
number is summed in an order that the block alone fixes, so the bits are the same for any number of threads.

Shape legend: S sources, D destinations (the first D sources), F fan-out, H heads, I row size, Q queries (D or 1),
G heads of the aggregate (H or 1), C chunks of destinations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.nn import attend_kernels as kernels
from dist_gat.nn.threads import in_threads
from dist_gat.nn.weighting import Weighting
from dist_gat.sampling.block import Block

DESTINATIONS_PER_TASK = 512
RANGES_PER_THREAD, SOURCES_PER_TASK = 2, 4096


def attend_cpu(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """See `dist_gat.nn.attend.attend`. rows_SI is float32 or float64; whatever else comes in is turned into that."""
    assert _inside(block, len(rows_SI)), "the block's neighbours or counts point outside of its rows"
    query_QHI, own_HI, alpha_DFH = (
        None if x is None else x.to(rows_SI.dtype).contiguous()
        for x in (weighting.query_QHI, weighting.own_HI, weighting.alpha_DFH)
    )
    z_DGI, computed_DFH = _Attend.apply(rows_SI.contiguous(), query_QHI, own_HI, alpha_DFH, block, weighting)
    return z_DGI, computed_DFH if alpha_DFH is None else alpha_DFH.detach()


def _inside(block: Block, num_rows: int) -> bool:
    """Whether the kernels, which do not look, stay inside the arrays. Takes microseconds."""
    num_dst, fan_out = block.neighbors_DF.shape
    if num_dst > num_rows or len(block.count_D) != num_dst:
        return False
    if num_dst * fan_out == 0:
        return not block.count_D.any()
    bounds = ((block.neighbors_DF, num_rows - 1), (block.count_D, fan_out))
    return all(int(x.min()) >= 0 and int(x.max()) <= highest for x, highest in bounds)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_SI: Tensor,
        query_QHI: Tensor | None,
        own_HI: Tensor | None,
        alpha_DFH: Tensor | None,
        block: Block,
        weighting: Weighting,
    ) -> tuple[Tensor, Tensor]:
        num_dst, fan_out = block.neighbors_DF.shape
        if alpha_DFH is None:
            assert query_QHI is not None, "scores need a query"
            alpha_DFH = rows_SI.new_empty(num_dst, fan_out, query_QHI.shape[1])
            scores_DFH = torch.empty_like(alpha_DFH)
            ctx.mark_non_differentiable(alpha_DFH)
        else:
            scores_DFH = alpha_DFH
        num_heads = alpha_DFH.shape[2]
        if query_QHI is None:
            query_QHI = rows_SI.new_empty(1, num_heads, 0)
        if own_HI is None:
            own_HI = rows_SI.new_empty(0, rows_SI.shape[1])
        weight_DFG = rows_SI.new_empty(num_dst, fan_out, 1) if weighting.mean and num_heads > 1 else alpha_DFH
        z_DGI = rows_SI.new_empty(num_dst, weight_DFG.shape[2], rows_SI.shape[1])
        rows, neighbors, count, query, own, scores, alpha, weight, z = _arrays(
            rows_SI, block.neighbors_DF, block.count_D, query_QHI, own_HI, scores_DFH, alpha_DFH, weight_DFG, z_DGI
        )
        rule, slope = _rule(weighting, rows)
        heads, sums = kernels.known(num_heads), kernels.known(weight.shape[2])

        def task(u: slice) -> None:
            kernels.forward(
                rows, u.start, neighbors[u], count[u], rule, slope, _flat(query if len(query) == 1 else query[u]), own,
                _flat(scores[u]), _flat(alpha[u]), _flat(weight[u]), _flat(z[u]), heads, sums,
            )  # fmt: skip

        in_threads(task, num_dst, DESTINATIONS_PER_TASK)
        ctx.save_for_backward(rows_SI, query_QHI, own_HI, scores_DFH, alpha_DFH, weight_DFG)
        ctx.block, ctx.weighting = block, weighting
        ctx.set_materialize_grads(False)
        return z_DGI, alpha_DFH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z_DGI: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_z_DGI is None:
            return (None,) * 6
        rows_SI, query_QHI, own_HI, scores_DFH, alpha_DFH, weight_DFG = ctx.saved_tensors
        block = ctx.block
        needs_rows, needs_query, needs_own, needs_alpha = ctx.needs_input_grad[:4]
        grad_scores_DFH = torch.empty_like(scores_DFH)
        grad_offset_DH = scores_DFH.new_empty(len(scores_DFH), scores_DFH.shape[2])
        num_chunks = -(-len(scores_DFH) // DESTINATIONS_PER_TASK)
        # What all destinations share gets a sum a chunk, and the chunks are summed after.
        shared = len(query_QHI) == 1
        grad_query_CHI = query_QHI.new_empty(num_chunks if shared else len(query_QHI), *query_QHI.shape[1:])
        grad_own_CHI = own_HI.new_empty(num_chunks, *own_HI.shape)
        (
            rows, neighbors, count, query, own, scores, alpha, weight, grad_z, grad_scores, grad_offset, grad_query,
            grad_own,
        ) = _arrays(
            rows_SI, block.neighbors_DF, block.count_D, query_QHI, own_HI, scores_DFH, alpha_DFH, weight_DFG,
            grad_z_DGI.contiguous(), grad_scores_DFH, grad_offset_DH, grad_query_CHI, grad_own_CHI,
        )  # fmt: skip
        rule, slope = _rule(ctx.weighting, rows)
        heads, sums = kernels.known(scores.shape[2]), kernels.known(weight.shape[2])

        def by_destination(u: slice) -> None:
            chunk = u.start // DESTINATIONS_PER_TASK
            kernels.backward(
                rows, u.start, neighbors[u], count[u], rule, slope, _flat(scores[u]), _flat(alpha[u]),
                _flat(grad_z[u]), _flat(grad_scores[u]), grad_offset[u],
                grad_query[chunk] if shared else _flat(grad_query[u]), grad_own[chunk], heads, sums,
            )  # fmt: skip

        def by_source(s: slice) -> None:
            kernels.scatter(
                neighbors, count, rule, _flat(query), own, _flat(weight), _flat(grad_z), _flat(grad_scores),
                grad_offset, s.start, grad_rows[s], heads, sums,
            )  # fmt: skip

        if rule != kernels.GIVEN or needs_alpha:
            in_threads(by_destination, len(scores), DESTINATIONS_PER_TASK)
        grad_rows_SI = None
        if needs_rows:
            grad_rows_SI = torch.empty_like(rows_SI)
            grad_rows = grad_rows_SI.numpy()
            # every task reads all neighbours, so there are few
            range_size = -(-len(rows) // (RANGES_PER_THREAD * torch.get_num_threads()))
            in_threads(by_source, len(rows), max(range_size, SOURCES_PER_TASK))
        return (
            grad_rows_SI,
            (grad_query_CHI.sum(dim=0, keepdim=True) if shared else grad_query_CHI) if needs_query else None,
            grad_own_CHI.sum(dim=0) if needs_own else None,
            grad_scores_DFH if needs_alpha else None,
            None,
            None,
        )


def _rule(weighting: Weighting, rows: np.ndarray) -> tuple[int, np.floating]:
    return int(weighting.rule), rows.dtype.type(weighting.slope)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _flat(array: np.ndarray) -> np.ndarray:
    """The same numbers in two dimensions; the last one stays."""
    return array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, array.shape[-1])
