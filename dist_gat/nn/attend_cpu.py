"""`attend` on the CPU: nogil numba kernels, and their own backward.

One pass over a destination's neighbours scores their rows, turns scores into weights and sums the rows while they
are in the first cache; nothing of the size [D, F, I] exists. The backward gathers again, by destination for the
gradients of weights, scores, query and bias; then each thread scatters to a range of sources of its own. Every
number is summed in an order that the block alone fixes, so the bits are the same for any number of threads.

Shape legend: S sources, D destinations (the first D sources), F fan-out, H heads, I row size, Q queries (D or 1),
G heads of the aggregate (H or 1), C chunks of destinations. Inside the kernels heads stand below their
destination, in two dimensions: [D*F, H] weights with row u*F + f, [D*G, I] rows with row u*G + g.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_gat.nn.scoring import MAX_EXPONENT, MIN_SCORE_SUM
from dist_gat.nn.threads import in_threads
from dist_gat.nn.weighting import Rule, Weighting
from dist_gat.prefetch import prefetch_row
from dist_gat.sampling.block import Block

DESTINATIONS_PER_TASK = 512
DESTINATIONS_AHEAD = 1  # whose rows are prefetched
RANGES_PER_THREAD, SOURCES_PER_TASK = 2, 4096
GIVEN, EXP, LINEAR = Rule.GIVEN.value, Rule.EXP.value, Rule.LINEAR.value
# Sums may be reordered into vector lanes; NaN and infinity keep their meaning. Without inlining, every step
# would pass whole array descriptors, which costs more than its arithmetic.
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
STEP = KERNEL | {"forceinline": True}


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

        def task(u: slice) -> None:
            _forward(
                rows, u.start, neighbors[u], count[u], rule, slope, _flat(query if len(query) == 1 else query[u]), own,
                _flat(scores[u]), _flat(alpha[u]), _flat(weight[u]), _flat(z[u]),
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

        def by_destination(u: slice) -> None:
            chunk = u.start // DESTINATIONS_PER_TASK
            _backward(
                rows, u.start, neighbors[u], count[u], rule, slope, _flat(scores[u]), _flat(alpha[u]),
                _flat(grad_z[u]), _flat(grad_scores[u]), grad_offset[u],
                grad_query[chunk] if shared else _flat(grad_query[u]), grad_own[chunk],
            )  # fmt: skip

        def by_source(s: slice) -> None:
            _scatter(
                neighbors, count, rule, _flat(query), own, _flat(weight), _flat(grad_z), _flat(grad_scores),
                grad_offset, s.start, grad_rows[s],
            )  # fmt: skip

        if rule != GIVEN or needs_alpha:
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


@njit(**KERNEL)
def _forward(rows, first_dst, neighbors, count, rule, slope, query, own, scores, alpha, weight, z):  # type: ignore[no-untyped-def]
    fan_out, num_heads, num_sums = neighbors.shape[1], alpha.shape[1], weight.shape[1]
    scratch = np.zeros((3, num_heads), rows.dtype)
    offset, top, total = scratch[:1], scratch[1:2], scratch[2:]
    for u in range(neighbors.shape[0]):
        _prefetch_rows(rows, neighbors, count, u + DESTINATIONS_AHEAD, 0)
        first, n = u * fan_out, count[u]
        if rule != GIVEN:
            q = min(u * num_heads, query.shape[0] - num_heads)
            offset[0] = 0
            if own.shape[0]:
                _dots(own, 0, num_heads, rows, first_dst + u, offset, 0)
            for f in range(n):
                _dots(query, q, num_heads, rows, neighbors[u, f], scores, first + f)
            _weigh(rule, slope, offset, scores, alpha, first, n, top, total)
            for f in range(n, fan_out):
                for h in range(num_heads):
                    alpha[first + f, h] = 0
        for g in range(u * num_sums, (u + 1) * num_sums):
            for i in range(z.shape[1]):
                z[g, i] = 0
        if num_sums < num_heads:
            for f in range(n):
                mean = rows.dtype.type(0)
                for h in range(num_heads):
                    mean += alpha[first + f, h]
                weight[first + f, 0] = mean / num_heads
        _spread(z, u * num_sums, num_sums, rows, neighbors, u, n, weight, first)


@njit(**KERNEL)
def _backward(  # type: ignore[no-untyped-def]
    rows, first_dst, neighbors, count, rule, slope, scores, alpha, grad_z, grad_scores, grad_offset, grad_query,
    grad_own,
):  # fmt: skip
    """Gradients of the scores (of the weights, if those are given), and with them of the queries."""
    fan_out, num_heads = neighbors.shape[1], alpha.shape[1]
    num_sums = grad_z.shape[0] // neighbors.shape[0]
    scratch = np.zeros((2, num_heads), rows.dtype)
    mean, total = scratch[:1], scratch[1:]
    own_row = np.zeros((1, 1), neighbors.dtype)
    grad_query[:] = 0
    grad_own[:] = 0
    for u in range(neighbors.shape[0]):
        _prefetch_rows(rows, neighbors, count, u + DESTINATIONS_AHEAD, 0)
        first, n = u * fan_out, count[u]
        for h in range(num_heads):
            mean[0, h], total[0, h], grad_offset[u, h] = 0, 0, 0
        for e in range(first, first + n):
            _dots(grad_z, u * num_sums, num_sums, rows, neighbors[u, e - first], grad_scores, e)
            if num_sums < num_heads:
                share = grad_scores[e, 0] / num_heads
                for h in range(num_heads):
                    grad_scores[e, h] = share
            for h in range(num_heads):
                mean[0, h] += alpha[e, h] * grad_scores[e, h]
                total[0, h] += scores[e, h]
        for e in range(first + n, first + fan_out):
            for h in range(num_heads):
                grad_scores[e, h] = 0
        if rule == GIVEN:
            continue
        q = min(u * num_heads, grad_query.shape[0] - num_heads)
        for e in range(first, first + n):
            _weigh_backward(rule, slope, scores, alpha, mean, total, grad_scores, grad_offset, e, u)
        _spread(grad_query, q, num_heads, rows, neighbors, u, n, grad_scores, first)
        if grad_own.shape[0]:
            own_row[0, 0] = first_dst + u
            _spread(grad_own, 0, num_heads, rows, own_row, 0, 1, grad_offset, u)


@njit(**KERNEL)
def _scatter(neighbors, count, rule, query, own, weight, grad_z, grad_scores, grad_offset, first_source, grad_rows):  # type: ignore[no-untyped-def]
    """Gradients of the rows of a range of sources, which starts at `first_source`."""
    fan_out, num_heads, num_sums = neighbors.shape[1], grad_scores.shape[1], weight.shape[1]
    for s in range(grad_rows.shape[0]):
        for i in range(grad_rows.shape[1]):
            grad_rows[s, i] = 0
    for u in range(neighbors.shape[0]):
        _prefetch_rows(grad_rows, neighbors, count, u + DESTINATIONS_AHEAD, first_source)
        q = min(u * num_heads, query.shape[0] - num_heads)
        if own.shape[0] and 0 <= u - first_source < grad_rows.shape[0]:
            _collect(grad_rows, u - first_source, own, 0, num_heads, grad_offset, u)
        for f in range(count[u]):
            s = neighbors[u, f] - first_source
            if 0 <= s < grad_rows.shape[0]:
                _collect(grad_rows, s, grad_z, u * num_sums, num_sums, weight, u * fan_out + f)
                if rule != GIVEN:
                    _collect(grad_rows, s, query, q, num_heads, grad_scores, u * fan_out + f)


@njit(**STEP)
def _prefetch_rows(rows, neighbors, count, u, first_row):  # type: ignore[no-untyped-def]
    """Of the neighbours of destination u, if there is one, those that `rows` holds from number `first_row` on."""
    if u < neighbors.shape[0]:
        for f in range(count[u]):
            row = neighbors[u, f] - first_row
            if 0 <= row < rows.shape[0]:
                prefetch_row(rows, row)


@njit(**STEP)
def _dots(heads, first, num_heads, rows, row, out, edge):  # type: ignore[no-untyped-def]
    """out[edge, h] = heads[first + h] . rows[row]"""
    zero = rows.dtype.type(0)
    h = 0
    # four heads at a time read the row once
    while h + 4 <= num_heads:
        a, b, c, d = zero, zero, zero, zero
        for i in range(rows.shape[1]):
            x = rows[row, i]
            a += x * heads[first + h, i]
            b += x * heads[first + h + 1, i]
            c += x * heads[first + h + 2, i]
            d += x * heads[first + h + 3, i]
        out[edge, h], out[edge, h + 1], out[edge, h + 2], out[edge, h + 3] = a, b, c, d
        h += 4
    while h < num_heads:
        a = zero
        for i in range(rows.shape[1]):
            a += rows[row, i] * heads[first + h, i]
        out[edge, h] = a
        h += 1


@njit(**STEP)
def _spread(heads, first, num_heads, rows, neighbors, u, n, weight, edge):  # type: ignore[no-untyped-def]
    """heads[first + h] += sum_f weight[edge + f, h] rows[neighbors[u, f]] over the n neighbours of destination u."""
    for f in range(0, n, 2):
        # two rows at a time halve the reads and writes of the sums; an odd last one is paired with itself times 0
        g = min(f + 1, n - 1)
        x, y, d, e = neighbors[u, f], neighbors[u, g], edge + f, edge + g
        pair = heads.dtype.type(g - f)
        h = 0
        while h + 4 <= num_heads:
            a, b, c, d_ = weight[d, h], weight[d, h + 1], weight[d, h + 2], weight[d, h + 3]
            p, q, r, s = weight[e, h] * pair, weight[e, h + 1] * pair, weight[e, h + 2] * pair, weight[e, h + 3] * pair
            for i in range(rows.shape[1]):
                v, w = rows[x, i], rows[y, i]
                heads[first + h, i] += a * v + p * w
                heads[first + h + 1, i] += b * v + q * w
                heads[first + h + 2, i] += c * v + r * w
                heads[first + h + 3, i] += d_ * v + s * w
            h += 4
        while h < num_heads:
            a, p = weight[d, h], weight[e, h] * pair
            for i in range(rows.shape[1]):
                heads[first + h, i] += a * rows[x, i] + p * rows[y, i]
            h += 1


@njit(**STEP)
def _collect(rows, row, heads, first, num_heads, weight, edge):  # type: ignore[no-untyped-def]
    """rows[row] += sum_h weight[edge, h] heads[first + h]"""
    h = 0
    while h + 4 <= num_heads:
        a, b, c, d = weight[edge, h], weight[edge, h + 1], weight[edge, h + 2], weight[edge, h + 3]
        for i in range(rows.shape[1]):
            rows[row, i] += (
                a * heads[first + h, i]
                + b * heads[first + h + 1, i]
                + c * heads[first + h + 2, i]
                + d * heads[first + h + 3, i]
            )
        h += 4
    while h < num_heads:
        a = weight[edge, h]
        for i in range(rows.shape[1]):
            rows[row, i] += a * heads[first + h, i]
        h += 1


@njit(**STEP)
def _weigh(rule, slope, offset, scores, alpha, first, n, top, total):  # type: ignore[no-untyped-def]
    """Adds the offset to the scores of one destination, in rows first to first + n - 1, and makes alpha of them."""
    zero, one, limit = scores.dtype.type(0), scores.dtype.type(1), scores.dtype.type(MAX_EXPONENT)
    num_heads = scores.shape[1]
    for h in range(num_heads):
        top[0, h], total[0, h] = -np.inf, zero
    for e in range(first, first + n):
        for h in range(num_heads):
            s = scores[e, h] + offset[0, h]
            scores[e, h] = s
            if rule == EXP:
                s *= math.exp(min(s, limit))
            elif rule != LINEAR:
                s = s * slope if s < zero else s
            alpha[e, h] = s
            top[0, h] = max(top[0, h], s)
    for e in range(first, first + n):
        for h in range(num_heads):
            if rule != LINEAR:
                alpha[e, h] = math.exp(alpha[e, h] - top[0, h])
            total[0, h] += alpha[e, h]
    for h in range(num_heads):
        usable = rule != LINEAR or total[0, h] > MIN_SCORE_SUM
        factor = one / total[0, h] if usable else zero
        for e in range(first, first + n):
            alpha[e, h] = alpha[e, h] * factor if usable else one / n


@njit(**STEP)
def _weigh_backward(rule, slope, scores, alpha, mean, total, grad, grad_offset, e, u):  # type: ignore[no-untyped-def]
    """Turns the gradients of the weights of edge e into those of its scores, and adds them to those of its offset."""
    zero, one, limit = scores.dtype.type(0), scores.dtype.type(1), scores.dtype.type(MAX_EXPONENT)
    for h in range(scores.shape[1]):
        s, change = scores[e, h], grad[e, h] - mean[0, h]
        if rule == LINEAR:
            change = change / total[0, h] if total[0, h] > MIN_SCORE_SUM else zero
        elif rule == EXP:
            change *= alpha[e, h] * math.exp(min(s, limit)) * (one + s if s <= limit else one)
        else:
            change *= alpha[e, h] * (one if s > zero else slope)
        grad[e, h] = change
        grad_offset[u, h] += change
