"""`attend` on the CPU: nogil numba kernels, and their own backward.

One pass over a destination's neighbours scores their rows, turns scores into weights, sums the rows and projects the
sums while they are in the first cache; nothing of the size [D, F, I] exists. The backward gathers again, once: a task
of destinations computes all gradients, writes those of the sources that it is the first to reach, and leaves the rest
in a part that is merged in the order of the tasks. So no aggregate of all destinations exists either, and every
number is summed in an order that the block alone fixes: the bits are the same for any number of threads.

Shape legend: S sources, D destinations, F fan-out, H heads, I row size, Q queries (D or 1), G heads of the aggregate
(H or 1), X output size of all heads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.kernels import attend_numba as kernels
from dist_gat.kernels.lanes import known, width_of
from dist_gat.kernels.threads import in_all_threads
from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.sampling.block import Block

# the most of a task; the limit of edges is for the wide neighbourhoods of inference
DESTINATIONS_PER_TASK, EDGES_PER_TASK = 256, 4096
# Tasks under way at a time, each with a part; half of them wait to be merged. A part has a row for each edge of its
# task whose source an earlier task reached first, EDGES_PER_TASK at most.
PARTS_PER_THREAD = 2
# merging a task takes a tenth of computing it
THREADS_PER_SHARE = 4


def attend_cpu(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """See `dist_gat.nn.attend.attend`. rows_SI is float32 or float64; the other inputs are converted to its type."""
    _check(rows_SI.shape[1], block, weighting)
    query_QHI, own_HI, bias_DFH, alpha_DFH, value_XI = (
        None if x is None else x.to(rows_SI.dtype).contiguous()
        for x in (weighting.query_QHI, weighting.own_HI, weighting.bias_DFH, weighting.alpha_DFH, weighting.value_XI)
    )
    # where the destinations are not the first rows, their rows are a separate input, which the bias needs
    own_DI = None if own_HI is None or block.dst_at_D is None else block.own_rows(rows_SI)
    sums, computed_DFH = _Attend.apply(
        rows_SI.contiguous(), own_DI, query_QHI, own_HI, bias_DFH, alpha_DFH, value_XI, block, weighting
    )
    return sums, computed_DFH if alpha_DFH is None else alpha_DFH.detach()


def _check(size: int, block: Block, weighting: Weighting) -> None:
    """Assert the shapes of what the kernels read beside the rows, because the kernels don't check them."""
    query, own, alpha, value = weighting.query_QHI, weighting.own_HI, weighting.alpha_DFH, weighting.value_XI
    bias, edges = weighting.bias_DFH, block.neighbors_DF.shape
    scored = query if alpha is None else alpha
    assert len(block.count_D) == block.num_dst, "counts point outside of the block: there is one a destination"
    assert scored is not None, "scores need a query"
    num_heads = scored.shape[-2] if alpha is None else scored.shape[-1]
    assert min(num_heads, size) > 0, "there is a head, and a number in a row"
    assert (weighting.rule == Rule.GIVEN) == (alpha is not None), "weights are given, or a rule makes them of scores"
    assert query is None or query.shape[1:] == (num_heads, size), "a query has the size of a row"
    assert query is None or len(query) in (1, block.num_dst), "there is one query, or one a destination"
    assert own is None or (alpha is None and own.shape == (num_heads, size)), "a bias has the size of a row"
    assert alpha is None or alpha.shape[:2] == edges, "there is a weight an edge"
    assert bias is None or (alpha is None and bias.shape == (*edges, num_heads)), "there is a bias an edge and head"
    assert block.dst_at_D is None or len(block.dst_at_D) == block.num_dst, "there is a position a destination"
    if value is not None:
        assert not weighting.mean, "each head's aggregate is projected, not their mean"
        fits = (value.shape[1], len(value) % num_heads) == (size, 0) and len(value) > 0
        assert fits, "a value has as many rows for each head"


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_SI: Tensor,
        own_DI: Tensor | None,
        query_QHI: Tensor | None,
        own_HI: Tensor | None,
        bias_DFH: Tensor | None,
        alpha_DFH: Tensor | None,
        value_XI: Tensor | None,
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
        num_heads, size = alpha_DFH.shape[2], rows_SI.shape[1]
        if query_QHI is None:
            query_QHI = rows_SI.new_empty(1, num_heads, 0)
        if own_HI is None:
            own_HI = rows_SI.new_empty(0, size)
        bias = rows_SI.new_empty(0, num_heads) if bias_DFH is None else bias_DFH.detach()
        weight_DFG = rows_SI.new_empty(num_dst, fan_out, 1) if weighting.mean and num_heads > 1 else alpha_DFH
        if value_XI is None:
            value_XI = rows_SI.new_empty(0, size)
            sums_DGI = rows_SI.new_empty(num_dst, weight_DFG.shape[2], size)
            z, out = _arrays(sums_DGI, rows_SI.new_empty(num_dst, 1, 0))
        else:
            sums_DGI = rows_SI.new_empty(num_dst, num_heads, len(value_XI) // num_heads)
            z, out = _arrays(rows_SI.new_empty(num_dst, 1, 0), sums_DGI)
        rows, own_rows, neighbors, count, query, own, value, scores, alpha, weight = _arrays(
            rows_SI, rows_SI[:num_dst] if own_DI is None else own_DI, block.neighbors_DF, block.count_D, query_QHI,
            own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG,
        )  # fmt: skip
        rule, slope = _rule(weighting, rows)
        heads, sums = known(num_heads), known(weight.shape[2])
        width = known(width_of(size, rows.itemsize))
        # where nothing is projected, the kernel of rows that are projected to their own size
        out_width = known(width_of(out.shape[-1], out.itemsize)) if weighting.value_XI is not None else width
        # by columns: row g * I + i has the weights of input i for all outputs of head g
        value = np.ascontiguousarray(value.reshape(num_heads, out.shape[-1], size).transpose(0, 2, 1))
        per_task, taken = _per_task(fan_out), np.zeros(1, np.int64)
        num_own = 0 if block.dst_at_D is not None else num_dst
        is_inside, *ctx.survey = kernels.survey(neighbors, count, len(rows), num_own, per_task)
        assert is_inside, "the block's neighbours or counts point outside of its rows"
        in_all_threads(
            len(ctx.survey[1]), kernels.forward, rows, own_rows, neighbors, count, rule, slope, _flat(query), own,
            _flat(bias.numpy()), _flat(value), _flat(scores), _flat(alpha), _flat(weight), _flat(z), _flat(out), taken,
            per_task, heads, sums, width, out_width,
        )  # fmt: skip
        ctx.save_for_backward(rows_SI, own_DI, query_QHI, own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG)
        ctx.block, ctx.weighting = block, weighting
        ctx.set_materialize_grads(False)
        return sums_DGI if weighting.value_XI is None else sums_DGI.flatten(1), alpha_DFH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_sums is None:
            return (None,) * 9
        rows_SI, own_DI, query_QHI, own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG = ctx.saved_tensors
        block = ctx.block
        needs_rows, needs_own_rows, needs_query, needs_own, needs_bias, needs_alpha, needs_value = ctx.needs_input_grad[
            :7
        ]
        num_dst, num_heads, size = len(scores_DFH), scores_DFH.shape[2], rows_SI.shape[1]
        projected, shared = len(value_XI) > 0, len(query_QHI) == 1
        per_task, num_threads = _per_task(scores_DFH.shape[1]), torch.get_num_threads()
        first_new, num_repeats = ctx.survey
        num_shares = -(-num_threads // THREADS_PER_SHARE)
        num_parts = max(min(PARTS_PER_THREAD * num_threads, len(num_repeats)), 2)
        grad_sums = grad_sums.contiguous()
        grad_out_DGO = grad_sums.unflatten(1, (num_heads, -1)) if projected else grad_sums
        grad_scores_DFH = torch.empty_like(scores_DFH if needs_alpha or needs_bias else scores_DFH[:0])
        grad_offset_DH = scores_DFH.new_empty(num_dst, num_heads)
        grad_query_QHI = torch.zeros_like(query_QHI)
        grad_own_HI, grad_value_XI = torch.zeros_like(own_HI), torch.zeros_like(value_XI)
        grad_rows_SI = torch.empty_like(rows_SI if needs_rows else rows_SI[:0])
        if not num_dst:
            grad_rows_SI.zero_()
        rows, own_rows, neighbors, count, query, own, value, scores, alpha, weight = _arrays(
            rows_SI, rows_SI[:num_dst] if own_DI is None else own_DI, block.neighbors_DF, block.count_D, query_QHI,
            own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG,
        )  # fmt: skip
        grad_out, grad_scores, grad_offset, grad_query, grad_own, grad_value, grad_rows = _arrays(
            grad_out_DGO, grad_scores_DFH, grad_offset_DH, grad_query_QHI, grad_own_HI, grad_value_XI, grad_rows_SI,
        )  # fmt: skip
        rule, slope = _rule(ctx.weighting, rows)
        scored = rule != kernels.GIVEN

        def part(like: Tensor, is_used: bool = True) -> np.ndarray:
            return like.new_empty(num_parts * like.shape[:-1].numel() if is_used else 0, size).numpy()

        most = max(num_repeats, default=0) if needs_rows else 0
        parts = kernels.Parts(
            rows_SI.new_empty(num_parts * most, size).numpy(), np.empty((num_parts, most), np.int64),
            np.zeros(num_parts, np.int64), part(query_QHI, shared and scored), part(own_HI), part(value_XI),
        )  # fmt: skip
        in_all_threads(
            len(num_repeats), kernels.backward, rows, own_rows, neighbors, count, rule, slope, _flat(query),
            # destinations' rows that are a separate input have a separate gradient
            own if own_DI is None else own[:0], value, _flat(scores), _flat(alpha), _flat(weight), _flat(grad_out),
            _flat(grad_scores), grad_offset, _flat(grad_query), grad_own, grad_value, grad_rows, first_new, parts,
            np.zeros(1 + num_shares + len(num_repeats), np.int64), per_task, num_shares, known(num_heads),
            known(weight.shape[2]), known(width_of(size, rows.itemsize)),
        )  # fmt: skip
        return (
            grad_rows_SI if needs_rows else None,
            grad_offset_DH @ own_HI if needs_own_rows else None,
            grad_query_QHI if needs_query else None,
            grad_own_HI if needs_own else None,
            grad_scores_DFH if needs_bias else None,
            grad_scores_DFH if needs_alpha else None,
            grad_value_XI if needs_value else None,
            None,
            None,
        )


def _per_task(fan_out: int) -> int:
    """Destinations of a task."""
    return max(min(DESTINATIONS_PER_TASK, EDGES_PER_TASK // max(fan_out, 1)), 1)


def _rule(weighting: Weighting, rows: np.ndarray) -> tuple[int, np.floating]:
    return int(weighting.rule), rows.dtype.type(weighting.slope)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _flat(array: np.ndarray) -> np.ndarray:
    """The array in two dimensions; the last dimension stays."""
    return array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, array.shape[-1])
