"""`attend` on the CPU: nogil numba kernels, and their own backward.

One pass over a destination's neighbours scores their rows, turns scores into weights, sums the rows and projects the
sums while they are in the first cache; nothing of the size [D, F, I] exists. The backward gathers again, by destination
for the gradients of weights, scores, query, bias and value; then each thread scatters to a range of sources of its own.
With a value that goes in batches of destinations, so that no aggregate of all destinations exists either. Every
number is summed in an order that the block alone fixes, so the bits are the same for any number of threads.

Shape legend: S sources, D destinations, F fan-out, H heads, I row size, Q queries (D or 1), G heads of the aggregate
(H or 1), C chunks of destinations, X output size of all heads, B destinations of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.lanes import known, width_of
from dist_gat.nn import attend_kernels as kernels
from dist_gat.nn.weighting import Weighting
from dist_gat.sampling.block import Block
from dist_gat.threads import cut, in_threads

# wide neighbourhoods, those of inference, are shared out too
DESTINATIONS_PER_TASK, EDGES_PER_TASK = 256, 4096
# of a batch, whose aggregates' gradients exist at the same time
TASKS_PER_THREAD = 3
RANGES_PER_THREAD, SOURCES_PER_TASK = 1, 2048


def attend_cpu(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """See `dist_gat.nn.attend.attend`. rows_SI is float32 or float64; whatever else comes in is turned into that."""
    assert _inside(block, len(rows_SI)), "the block's neighbours or counts point outside of its rows"
    _check(rows_SI.shape[1], block, weighting)
    query_QHI, own_HI, alpha_DFH, value_XI = (
        None if x is None else x.to(rows_SI.dtype).contiguous()
        for x in (weighting.query_QHI, weighting.own_HI, weighting.alpha_DFH, weighting.value_XI)
    )
    # of destinations that are not the first rows, what the bias is added for comes as an input of its own
    own_DI = None if own_HI is None or block.dst_at_D is None else block.own_rows(rows_SI)
    sums, computed_DFH = _Attend.apply(
        rows_SI.contiguous(), own_DI, query_QHI, own_HI, alpha_DFH, value_XI, block, weighting
    )
    return sums, computed_DFH if alpha_DFH is None else alpha_DFH.detach()


def _check(size: int, block: Block, weighting: Weighting) -> None:
    """Whether what the kernels read beside the rows has its shape; they do not look."""
    query, own, alpha, value = weighting.query_QHI, weighting.own_HI, weighting.alpha_DFH, weighting.value_XI
    scored = query if alpha is None else alpha
    assert scored is not None, "scores need a query"
    num_heads = scored.shape[-2] if alpha is None else scored.shape[-1]
    assert num_heads > 0, "there is a head"
    assert query is None or query.shape[1:] == (num_heads, size), "a query has the size of a row"
    assert query is None or len(query) in (1, block.num_dst), "there is one query, or one a destination"
    assert own is None or (alpha is None and own.shape == (num_heads, size)), "a bias has the size of a row"
    assert alpha is None or alpha.shape[:2] == block.neighbors_DF.shape, "there is a weight an edge"
    assert block.dst_at_D is None or len(block.dst_at_D) == block.num_dst, "there is a position a destination"
    if value is not None:
        assert not weighting.mean, "each head's aggregate is projected, not their mean"
        assert (value.shape[1], len(value) % num_heads) == (size, 0), "a value has as many rows for each head"


def _inside(block: Block, num_rows: int) -> bool:
    """Whether the kernels, which do not look, stay inside the arrays. Takes microseconds."""
    num_dst, fan_out = block.neighbors_DF.shape
    if len(block.count_D) != num_dst or (block.dst_at_D is None and num_dst > num_rows):
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
        own_DI: Tensor | None,
        query_QHI: Tensor | None,
        own_HI: Tensor | None,
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
        width, out_width = (known(width_of(x.shape[-1], x.itemsize)) for x in (rows, out))
        # one row of this is one number of all of a head's outputs
        value = np.ascontiguousarray(value.reshape(num_heads, out.shape[-1], size).transpose(0, 2, 1))
        value = value.reshape(num_heads * size, out.shape[-1])

        def task(u: slice) -> None:
            kernels.forward(
                rows, own_rows[u], neighbors[u], count[u], rule, slope,
                _flat(query if len(query) == 1 else query[u]), own, value, _flat(scores[u]), _flat(alpha[u]),
                _flat(weight[u]), _flat(z[u]), _flat(out[u]), heads, sums, width,
                out_width,
            )  # fmt: skip

        in_threads(task, cut(num_dst, _per_task(fan_out)))
        ctx.save_for_backward(rows_SI, own_DI, query_QHI, own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG)
        ctx.block, ctx.weighting = block, weighting
        ctx.set_materialize_grads(False)
        return sums_DGI if weighting.value_XI is None else sums_DGI.flatten(1), alpha_DFH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_sums is None:
            return (None,) * 8
        rows_SI, own_DI, query_QHI, own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG = ctx.saved_tensors
        block = ctx.block
        needs_rows, needs_own_rows, needs_query, needs_own, needs_alpha, needs_value = ctx.needs_input_grad[:6]
        projected = len(value_XI) > 0
        num_dst, num_heads, size = len(scores_DFH), scores_DFH.shape[2], rows_SI.shape[1]
        per_task, batch = _per_task(scores_DFH.shape[1]), max(num_dst, 1)
        if projected:
            batch = min(batch, per_task * TASKS_PER_THREAD * torch.get_num_threads())
        grad_sums = grad_sums.contiguous()
        if projected:
            grad_out_DGO = grad_sums.unflatten(1, (num_heads, -1))
            grad_z_BGI = rows_SI.new_empty(batch, num_heads, size)
        else:
            grad_out_DGO, grad_z_BGI = grad_sums.new_empty(num_dst, 1, 0), grad_sums
        # What all destinations share gets a sum a chunk, and the chunks are summed after.
        num_chunks = -(-num_dst // per_task)
        shared = len(query_QHI) == 1
        grad_query_CHI = query_QHI.new_empty(num_chunks if shared else num_dst, *query_QHI.shape[1:])
        grad_own_CHI = own_HI.new_empty(num_chunks, *own_HI.shape)
        # those of the value are wide, so there are a batch's, which are added one by one
        grad_value_CXI = value_XI.new_empty(-(-batch // per_task), *value_XI.shape)
        grad_value_XI = torch.zeros_like(value_XI)
        # and so are those of the scores, unless they are asked for
        grad_scores_BFH = torch.empty_like(scores_DFH if needs_alpha else scores_DFH[:batch])
        grad_offset_DH = scores_DFH.new_empty(num_dst, num_heads)
        grad_rows_SI = torch.empty_like(rows_SI) if needs_rows else rows_SI.new_empty(0, size)
        rows, own_rows, neighbors, count, query, own, value, scores, alpha, weight = _arrays(
            rows_SI, rows_SI[:num_dst] if own_DI is None else own_DI, block.neighbors_DF, block.count_D, query_QHI,
            own_HI, value_XI, scores_DFH, alpha_DFH, weight_DFG,
        )  # fmt: skip
        grad_out, grad_z, grad_scores, grad_offset, grad_query, grad_own, grad_value, grad_rows = _arrays(
            grad_out_DGO, grad_z_BGI, grad_scores_BFH, grad_offset_DH, grad_query_CHI, grad_own_CHI, grad_value_CXI,
            grad_rows_SI,
        )  # fmt: skip
        rule, slope = _rule(ctx.weighting, rows)
        heads, sums = known(num_heads), known(weight.shape[2])
        width = known(width_of(size, rows.itemsize))
        # rows that came as an input of their own have a gradient of their own
        added = own if own_DI is None else own[:0]

        def by_destination(u: slice) -> None:
            chunk, first = u.start // per_task, u.start // batch * batch
            at = slice(u.start - first, u.stop - first)
            kept = u if needs_alpha else at
            kernels.backward(
                rows, own_rows[u], neighbors[u], count[u], rule, slope, value, _flat(scores[u]), _flat(alpha[u]),
                _flat(grad_out[u]), _flat(grad_z[at]), _flat(grad_scores[kept]), grad_offset[u],
                grad_query[chunk] if shared else _flat(grad_query[u]), grad_own[chunk],
                grad_value[at.start // per_task], heads, sums, width,
            )  # fmt: skip

        num_open = 0  # sources that an earlier batch has reached: they are the first ones
        for first in range(0, num_dst, batch):
            b = slice(first, min(first + batch, num_dst))
            if rule != kernels.GIVEN or needs_alpha or projected:
                chunks = cut(b.stop, per_task, b.start)
                in_threads(by_destination, chunks)
                for number in range(len(chunks) if projected else 0):
                    grad_value_XI += grad_value_CXI[number]
            if not needs_rows:
                continue
            is_last = b.stop == num_dst
            reached = len(rows) if is_last else max(num_open, b.stop, int(neighbors[b].max(initial=-1)) + 1)

            kept = b if needs_alpha else slice(0, b.stop - b.start)

            def by_source(s: slice, b: slice = b, num_open: int = num_open, kept: slice = kept) -> None:
                kernels.scatter(
                    neighbors[b], count[b], rule, _flat(query if len(query) == 1 else query[b]), added,
                    _flat(weight[b]), _flat(grad_z), _flat(grad_scores[kept]), grad_offset[b], b.start, s.start,
                    max(num_open - s.start, 0), grad_rows[s], heads, sums, width,
                )  # fmt: skip

            # every task reads all neighbours of the batch, so there are few
            num_ranges = RANGES_PER_THREAD * torch.get_num_threads()
            steps = [max(-(-size // num_ranges), SOURCES_PER_TASK) for size in (num_open, reached - num_open)]
            in_threads(by_source, [*cut(num_open, steps[0]), *cut(reached, steps[1], num_open)])
            num_open = reached
        if needs_rows and not num_dst:
            grad_rows[:] = 0
        return (
            grad_rows_SI if needs_rows else None,
            grad_offset_DH @ own_HI if needs_own_rows else None,
            (grad_query_CHI.sum(dim=0, keepdim=True) if shared else grad_query_CHI) if needs_query else None,
            grad_own_CHI.sum(dim=0) if needs_own else None,
            grad_scores_BFH if needs_alpha else None,
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
    """The same numbers in two dimensions; the last one stays."""
    return array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, array.shape[-1])
