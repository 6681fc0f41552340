"""The numba kernels of `attend` on the CPU: forward, backward by destination, and scatter by source.

They run without the GIL and do not look whether a number points outside of an array: `attend_cpu` does. Heads stand
below their destination, in two dimensions: [D*F, H] weights with row u*F + f, [D*G, I] rows with row u*G + g. The
last two arguments are `known(H)` and `known(G)`.

Where each head's aggregate is projected by its O rows of a matrix, `value` has them with row g*O + o, and the
aggregates of a few destinations exist instead of all.

Shape legend: D destinations of a chunk, F fan-out, H heads, I row size, G heads of the aggregate (H or 1), O output
size of a head.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dist_gat.nn.scoring import MAX_EXPONENT, MIN_SCORE_SUM
from dist_gat.nn.weighting import Rule
from dist_gat.prefetch import prefetch_row

DESTINATIONS_AHEAD = 1  # whose rows are prefetched
PRODUCTS_AT_ONCE = 4  # destinations whose products are added to the gradient of a matrix together
GIVEN, EXP, LINEAR = Rule.GIVEN.value, Rule.EXP.value, Rule.LINEAR.value
# Sums may be reordered into vector lanes; NaN and infinity keep their meaning. Without inlining, every step
# would pass whole array descriptors, which costs more than its arithmetic.
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
STEP = KERNEL | {"forceinline": True}


def known(number: int) -> tuple[int, ...]:
    """A number that a kernel is compiled for, which is the length: loops over heads are 1.5 times as fast unrolled."""
    return (0,) * number


@njit(**KERNEL)
def forward(  # type: ignore[no-untyped-def]
    rows, own_rows, neighbors, count, rule, slope, query, own, value, scores, alpha, weight, z, out, heads, sums
):  # fmt: skip
    """Weights, and the aggregates `z`, or where there is a `value` their projections `out`."""
    fan_out, num_heads, num_sums = neighbors.shape[1], len(heads), len(sums)
    projected = value.shape[0] > 0
    if projected:
        z = np.empty((num_sums, rows.shape[1]), rows.dtype)
    scratch = np.zeros((3, num_heads), rows.dtype)
    offset, top, total = scratch[:1], scratch[1:2], scratch[2:]
    for u in range(neighbors.shape[0]):
        _prefetch_rows(rows, neighbors, count, u + DESTINATIONS_AHEAD, 0)
        first, n = u * fan_out, count[u]
        if rule != GIVEN:
            q = min(u * num_heads, query.shape[0] - num_heads)
            offset[0] = 0
            if own.shape[0]:
                _dots(own, 0, num_heads, own_rows, u, offset, 0)
            for f in range(n):
                if f + 16 < n:
                    prefetch_row(rows, neighbors[u, f + 16])
                _dots(query, q, num_heads, rows, neighbors[u, f], scores, first + f)
            _weigh(rule, slope, offset, scores, alpha, first, n, top, total)
            for f in range(n, fan_out):
                for h in range(num_heads):
                    alpha[first + f, h] = 0
        first_sum = 0 if projected else u * num_sums
        _clear(z, first_sum, num_sums)
        if num_sums < num_heads:
            for f in range(n):
                mean = rows.dtype.type(0)
                for h in range(num_heads):
                    mean += alpha[first + f, h]
                weight[first + f, 0] = mean / num_heads
        _spread(z, first_sum, num_sums, rows, neighbors, u, n, weight, first)
        if projected:
            for g in range(num_sums):
                _dots(value, g * out.shape[1], out.shape[1], z, g, out, u * num_sums + g)


@njit(**KERNEL)
def backward(  # type: ignore[no-untyped-def]
    rows, own_rows, neighbors, count, rule, slope, value, scores, alpha, grad_out, grad_z, grad_scores, grad_offset,
    grad_query, grad_own, grad_value, heads, sums,
):  # fmt: skip
    """Gradients of the scores (of the weights, if those are given), and with them of the queries.

    Where there is a `value`, also its gradient, and those of the aggregates, which are made again.
    """
    fan_out, num_heads, num_sums = neighbors.shape[1], len(heads), len(sums)
    scratch = np.zeros((2, num_heads), rows.dtype)
    mean, total = scratch[:1], scratch[1:]
    own_row = np.zeros((1, 1), neighbors.dtype)
    grad_query[:] = 0
    grad_own[:] = 0
    grad_value[:] = 0
    z = np.zeros((PRODUCTS_AT_ONCE * num_sums, rows.shape[1]), rows.dtype)
    for u in range(neighbors.shape[0]):
        _prefetch_rows(rows, neighbors, count, u + DESTINATIONS_AHEAD, 0)
        first, n = u * fan_out, count[u]
        if value.shape[0]:
            _project_backward(value, grad_out, grad_z, u, num_sums)
            at = u % PRODUCTS_AT_ONCE
            _clear(z, at * num_sums, num_sums)
            _spread(z, at * num_sums, num_sums, rows, neighbors, u, n, alpha, first)
            if at == PRODUCTS_AT_ONCE - 1 or u == neighbors.shape[0] - 1:
                _add_products(grad_value, grad_out, u - at, at + 1, z, num_sums)
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
            own_row[0, 0] = u
            _spread(grad_own, 0, num_heads, own_rows, own_row, 0, 1, grad_offset, u)


@njit(**KERNEL)
def scatter(  # type: ignore[no-untyped-def]
    neighbors, count, rule, query, own, weight, grad_z, grad_scores, grad_offset, first_dst, first_source, num_open,
    grad_rows, heads, sums,
):  # fmt: skip
    """Adds to the gradients of the rows of a range of sources, which starts at `first_source`.

    Of the range, the first `num_open` rows have numbers already; the others are set. `first_dst` is the source that
    is the first destination.
    """
    fan_out, num_heads, num_sums = neighbors.shape[1], len(heads), len(sums)
    for u in range(neighbors.shape[0]):
        _prefetch_rows(grad_rows, neighbors, count, u + DESTINATIONS_AHEAD, first_source)
        q = min(u * num_heads, query.shape[0] - num_heads)
        d = first_dst + u - first_source
        if own.shape[0] and 0 <= d < grad_rows.shape[0]:
            num_open = _open_rows(grad_rows, num_open, d + 1)
            _collect(grad_rows, d, own, 0, num_heads, grad_offset, u)
        for f in range(count[u]):
            s = neighbors[u, f] - first_source
            if 0 <= s < grad_rows.shape[0]:
                num_open = _open_rows(grad_rows, num_open, s + 1)
                _collect(grad_rows, s, grad_z, u * num_sums, num_sums, weight, u * fan_out + f)
                if rule != GIVEN:
                    _collect(grad_rows, s, query, q, num_heads, grad_scores, u * fan_out + f)
    _open_rows(grad_rows, num_open, grad_rows.shape[0])


@njit(**STEP)
def _clear(rows, first, number):  # type: ignore[no-untyped-def]
    for row in range(first, first + number):
        for i in range(rows.shape[1]):
            rows[row, i] = 0


@njit(**STEP)
def _project_backward(value, grad_out, grad_z, u, num_sums):  # type: ignore[no-untyped-def]
    """grad_z[u*G + g] = sum_o grad_out[u*G + g, o] value[g*O + o]"""
    size = grad_out.shape[1]
    _clear(grad_z, u * num_sums, num_sums)
    for g in range(num_sums):
        _collect(grad_z, u * num_sums + g, value, g * size, size, grad_out, u * num_sums + g)


@njit(**STEP)
def _add_products(grad_value, grad_out, first, number, z, num_sums):  # type: ignore[no-untyped-def]
    """grad_value[g*O + o] += sum_k grad_out[(first + k)*G + g, o] z[k*G + g] over up to four destinations k.

    Of those that are fewer, the last stands for the others, times 0.
    """
    size, kind = grad_out.shape[1], z.dtype.type
    m1, m2, m3 = kind(number > 1), kind(number > 2), kind(number > 3)
    k1, k2, k3 = min(1, number - 1), min(2, number - 1), min(3, number - 1)
    for g in range(num_sums):
        r0, r1, r2, r3 = g, k1 * num_sums + g, k2 * num_sums + g, k3 * num_sums + g
        e = first * num_sums
        o = 0
        while o + 2 <= size:
            a, a_ = grad_out[e + r0, o], grad_out[e + r0, o + 1]
            b, b_ = grad_out[e + r1, o] * m1, grad_out[e + r1, o + 1] * m1
            c, c_ = grad_out[e + r2, o] * m2, grad_out[e + r2, o + 1] * m2
            d, d_ = grad_out[e + r3, o] * m3, grad_out[e + r3, o + 1] * m3
            p = g * size + o
            for i in range(z.shape[1]):
                v, w, x, y = z[r0, i], z[r1, i], z[r2, i], z[r3, i]
                grad_value[p, i] += a * v + b * w + c * x + d * y
                grad_value[p + 1, i] += a_ * v + b_ * w + c_ * x + d_ * y
            o += 2
        if o < size:
            a = grad_out[e + r0, o]
            b, c, d = grad_out[e + r1, o] * m1, grad_out[e + r2, o] * m2, grad_out[e + r3, o] * m3
            for i in range(z.shape[1]):
                grad_value[g * size + o, i] += a * z[r0, i] + b * z[r1, i] + c * z[r2, i] + d * z[r3, i]


@njit(**STEP)
def _open_rows(rows, num_open, end):  # type: ignore[no-untyped-def]
    """Zeroes the rows before `end` that are not open yet; returns how many are open now.

    A sampler numbers sources in the order in which they appear, so a row is in the cache when it is first added to.
    """
    for row in range(num_open, end):
        for i in range(rows.shape[1]):
            rows[row, i] = 0
    return max(num_open, end)


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
