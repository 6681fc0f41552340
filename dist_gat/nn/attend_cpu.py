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
from dist_gat.sampling.block import Block

DESTINATIONS_PER_TASK = 512
RANGES_PER_THREAD, SOURCES_PER_TASK = 2, 4096
GIVEN, EXP, LINEAR = Rule.GIVEN.value, Rule.EXP.value, Rule.LINEAR.value
# Sums may be reordered into vector lanes; NaN and infinity keep their meaning. Without inlining, every step
# would pass whole array descriptors, which costs more than its arithmetic.
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
STEP = KERNEL | {"forceinline": True}


def attend_cpu(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """See `dist_gat.nn.attend.attend`. rows_SI is float32 or float64; whatever else comes in is turned into that."""
    query, bias, alpha = (
        None if x is None else x.to(rows_SI.dtype).contiguous()
        for x in (weighting.query_QHI, weighting.bias_DH, weighting.alpha_DFH)
    )
    z_DGI, alpha_DFH = _Attend.apply(rows_SI.contiguous(), query, bias, alpha, block, weighting)
    return z_DGI, alpha_DFH if alpha is None else alpha.detach()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_SI: Tensor,
        query_QHI: Tensor | None,
        bias_QH: Tensor | None,
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
        if bias_QH is None:
            bias_QH = rows_SI.new_zeros(1, num_heads)
        weight_DFG = rows_SI.new_empty(num_dst, fan_out, 1) if weighting.mean and num_heads > 1 else alpha_DFH
        z_DGI = rows_SI.new_empty(num_dst, weight_DFG.shape[2], rows_SI.shape[1])
        rows, neighbors, count, query, bias, scores, alpha, weight, z = _arrays(
            rows_SI, block.neighbors_DF, block.count_D, query_QHI, bias_QH, scores_DFH, alpha_DFH, weight_DFG, z_DGI
        )

        rule, slope = _rule(weighting, rows)

        def task(u: slice) -> None:
            _forward(
                rows, neighbors[u], count[u], rule, slope, _flat(_own(query, u)), _own(bias, u),
                _flat(scores[u]), _flat(alpha[u]), _flat(weight[u]), _flat(z[u]),
            )  # fmt: skip

        in_threads(task, num_dst, DESTINATIONS_PER_TASK)
        ctx.save_for_backward(rows_SI, query_QHI, scores_DFH, alpha_DFH, weight_DFG)
        ctx.block, ctx.weighting = block, weighting
        return z_DGI, alpha_DFH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z_DGI: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        rows_SI, query_QHI, scores_DFH, alpha_DFH, weight_DFG = ctx.saved_tensors
        block = ctx.block
        needs_rows, needs_query, needs_bias, needs_alpha = ctx.needs_input_grad[:4]
        grad_scores_DFH = torch.empty_like(scores_DFH)
        num_chunks = -(-len(scores_DFH) // DESTINATIONS_PER_TASK)
        shared = len(query_QHI) == 1
        grad_query_CHI = query_QHI.new_empty(num_chunks if shared else len(query_QHI), *query_QHI.shape[1:])
        rows, neighbors, count, query, scores, alpha, weight, grad_z, grad_scores, grad_query = _arrays(
            rows_SI, block.neighbors_DF, block.count_D, query_QHI, scores_DFH, alpha_DFH, weight_DFG,
            grad_z_DGI.contiguous(), grad_scores_DFH, grad_query_CHI,
        )  # fmt: skip
        rule, slope = _rule(ctx.weighting, rows)

        def by_destination(u: slice) -> None:
            chunk = u.start // DESTINATIONS_PER_TASK
            _backward(
                rows, neighbors[u], count[u], rule, slope, _flat(scores[u]), _flat(alpha[u]), _flat(grad_z[u]),
                _flat(grad_scores[u]), _flat(grad_query[chunk : chunk + 1] if shared else grad_query[u]),
            )  # fmt: skip

        if rule != GIVEN or needs_alpha:
            in_threads(by_destination, len(scores), DESTINATIONS_PER_TASK)
        grad_rows_SI = None
        if needs_rows:
            grad_rows_SI = torch.empty_like(rows_SI)
            grad_rows = grad_rows_SI.numpy()

            def by_source(s: slice) -> None:
                _scatter(
                    neighbors, count, rule, _flat(query), _flat(weight), _flat(grad_z), _flat(grad_scores), s.start,
                    grad_rows[s],
                )  # fmt: skip

            # every task reads all neighbours, so there are few
            range_size = -(-len(rows) // (RANGES_PER_THREAD * torch.get_num_threads()))
            in_threads(by_source, len(rows), max(range_size, SOURCES_PER_TASK))
        return (
            grad_rows_SI,
            (grad_query_CHI.sum(dim=0, keepdim=True) if shared else grad_query_CHI) if needs_query else None,
            grad_scores_DFH.sum(dim=1) if needs_bias else None,
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


def _own(array: np.ndarray, u: slice) -> np.ndarray:
    """The part of destinations `u`, or the one entry that all share."""
    return array if len(array) == 1 else array[u]


@njit(**KERNEL)
def _forward(rows, neighbors, count, rule, slope, query, bias, scores, alpha, weight, z):  # type: ignore[no-untyped-def]
    fan_out, num_heads, num_sums = neighbors.shape[1], alpha.shape[1], weight.shape[1]
    for u in range(neighbors.shape[0]):
        first, n = u * fan_out, count[u]
        if rule != GIVEN:
            q, b = min(u * num_heads, query.shape[0] - num_heads), min(u, bias.shape[0] - 1)
            for f in range(n):
                _dots(query, q, num_heads, rows, neighbors[u, f], scores, first + f)
                for h in range(num_heads):
                    scores[first + f, h] += bias[b, h]
            _weigh(rule, slope, scores, alpha, first, n)
            for f in range(n, fan_out):
                for h in range(num_heads):
                    alpha[first + f, h] = 0
        for g in range(u * num_sums, (u + 1) * num_sums):
            for i in range(z.shape[1]):
                z[g, i] = 0
        for f in range(n):
            if num_sums < num_heads:
                mean = rows.dtype.type(0)
                for h in range(num_heads):
                    mean += alpha[first + f, h]
                weight[first + f, 0] = mean / num_heads
            _spread(z, u * num_sums, num_sums, rows, neighbors[u, f], weight, first + f)


@njit(**KERNEL)
def _backward(rows, neighbors, count, rule, slope, scores, alpha, grad_z, grad_scores, grad_query):  # type: ignore[no-untyped-def]
    """Gradients of the scores (of the weights, if those are given) and of the query."""
    fan_out, num_heads = neighbors.shape[1], alpha.shape[1]
    num_sums = grad_z.shape[0] // neighbors.shape[0]
    for h in range(grad_query.shape[0]):
        for i in range(grad_query.shape[1]):
            grad_query[h, i] = 0
    for u in range(neighbors.shape[0]):
        first, n = u * fan_out, count[u]
        for f in range(n):
            _dots(grad_z, u * num_sums, num_sums, rows, neighbors[u, f], grad_scores, first + f)
            if num_sums < num_heads:
                share = grad_scores[first + f, 0] / num_heads
                for h in range(num_heads):
                    grad_scores[first + f, h] = share
        for f in range(n, fan_out):
            for h in range(num_heads):
                grad_scores[first + f, h] = 0
        if rule != GIVEN:
            _weigh_backward(rule, slope, scores, alpha, grad_scores, first, n)
            q = min(u * num_heads, grad_query.shape[0] - num_heads)
            for f in range(n):
                _spread(grad_query, q, num_heads, rows, neighbors[u, f], grad_scores, first + f)


@njit(**KERNEL)
def _scatter(neighbors, count, rule, query, weight, grad_z, grad_scores, first_source, grad_rows):  # type: ignore[no-untyped-def]
    """Gradients of the rows of a range of sources, which starts at `first_source`."""
    fan_out, num_heads, num_sums = neighbors.shape[1], grad_scores.shape[1], weight.shape[1]
    for s in range(grad_rows.shape[0]):
        for i in range(grad_rows.shape[1]):
            grad_rows[s, i] = 0
    for u in range(neighbors.shape[0]):
        q = min(u * num_heads, query.shape[0] - num_heads)
        for f in range(count[u]):
            s = neighbors[u, f] - first_source
            if 0 <= s < grad_rows.shape[0]:
                _collect(grad_rows, s, grad_z, u * num_sums, num_sums, weight, u * fan_out + f)
                if rule != GIVEN:
                    _collect(grad_rows, s, query, q, num_heads, grad_scores, u * fan_out + f)


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
def _spread(heads, first, num_heads, rows, row, weight, edge):  # type: ignore[no-untyped-def]
    """heads[first + h] += weight[edge, h] rows[row]"""
    h = 0
    while h + 4 <= num_heads:
        a, b, c, d = weight[edge, h], weight[edge, h + 1], weight[edge, h + 2], weight[edge, h + 3]
        for i in range(rows.shape[1]):
            x = rows[row, i]
            heads[first + h, i] += a * x
            heads[first + h + 1, i] += b * x
            heads[first + h + 2, i] += c * x
            heads[first + h + 3, i] += d * x
        h += 4
    while h < num_heads:
        a = weight[edge, h]
        for i in range(rows.shape[1]):
            heads[first + h, i] += a * rows[row, i]
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
def _weigh(rule, slope, scores, alpha, first, n):  # type: ignore[no-untyped-def]
    """alpha of the scores of one destination, which stand in rows first to first + n - 1."""
    one, top = scores.dtype.type(1), scores.dtype.type(MAX_EXPONENT)
    for h in range(scores.shape[1]):
        highest, total = scores.dtype.type(-np.inf), scores.dtype.type(0)
        for e in range(first, first + n):
            s = scores[e, h]
            total += s
            if rule == EXP:
                s *= math.exp(min(s, top))
            elif s < 0:
                s *= slope
            alpha[e, h] = s
            highest = max(highest, s)
        if rule == LINEAR:
            for e in range(first, first + n):
                alpha[e, h] = scores[e, h] / total if total > MIN_SCORE_SUM else one / n
            continue
        total = scores.dtype.type(0)
        for e in range(first, first + n):
            alpha[e, h] = math.exp(alpha[e, h] - highest)
            total += alpha[e, h]
        factor = one / total
        for e in range(first, first + n):
            alpha[e, h] *= factor


@njit(**STEP)
def _weigh_backward(rule, slope, scores, alpha, grad, first, n):  # type: ignore[no-untyped-def]
    """Turns the gradient of alpha into that of the scores, in place."""
    one, top = scores.dtype.type(1), scores.dtype.type(MAX_EXPONENT)
    for h in range(scores.shape[1]):
        mean, total = scores.dtype.type(0), scores.dtype.type(0)
        for e in range(first, first + n):
            mean += alpha[e, h] * grad[e, h]
            total += scores[e, h]
        for e in range(first, first + n):
            s, centred = scores[e, h], grad[e, h] - mean
            if rule == LINEAR:
                grad[e, h] = centred / total if total > MIN_SCORE_SUM else 0
            elif rule == EXP:
                grad[e, h] = alpha[e, h] * centred * math.exp(min(s, top)) * (one + s if s <= top else one)
            else:
                grad[e, h] = alpha[e, h] * centred * (slope if s <= 0 else one)
