"""The numba kernels of `attend` on the CPU: forward, backward by destination, and scatter by source.

They run without the GIL and do not look whether a number points outside of an array: `attend_cpu` does. Heads stand
below their destination, in two dimensions: [D*F, H] weights with row u*F + f, [D*G, I] rows with row u*G + g. The
last arguments are `known` numbers: H, G, and the lanes in which rows and projected rows are handled, whose number
divides I and O.

Where each head's aggregate is projected by its O rows of a matrix, the aggregates of a few destinations exist instead
of all. `value` has the matrix by columns forward, [G*I, O] with row g*I + i, and by rows backward, [G*O, I].

Shape legend: D destinations of a chunk, F fan-out, H heads, I row size, G heads of the aggregate (H or 1), O output
size of a head.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dist_gat.lanes import choose, dot, exp, fill, fma, load, prefetch_lanes, store, total
from dist_gat.nn.scoring import MAX_EXPONENT, MIN_SCORE_SUM
from dist_gat.nn.weighting import Rule
from dist_gat.prefetch import prefetch_row

DESTINATIONS_AHEAD, EDGES_AHEAD = 1, 16  # whose rows are prefetched
PRODUCTS_AT_ONCE = 4  # destinations that a row of a matrix is read for
GIVEN, EXP, LINEAR = Rule.GIVEN.value, Rule.EXP.value, Rule.LINEAR.value
# Without inlining, every step would pass whole array descriptors, which costs more than its arithmetic.
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}
STEP = KERNEL | {"forceinline": True}


@njit(**KERNEL)
def forward(  # type: ignore[no-untyped-def]
    rows, own_rows, neighbors, count, rule, slope, query, own, value, scores, alpha, weight, z, out, heads, sums,
    width, out_width,
):  # fmt: skip
    """Weights, and the aggregates `z`, or where there is a `value` their projections `out`."""
    fan_out, num_heads, num_sums = neighbors.shape[1], len(heads), len(sums)
    projected = out.shape[1] > 0
    if projected:
        z = np.empty((PRODUCTS_AT_ONCE * num_sums, rows.shape[1]), rows.dtype)
    offset, own_row = np.zeros((1, num_heads), rows.dtype), np.zeros((1, 1), neighbors.dtype)
    for u in range(neighbors.shape[0]):
        _prefetch_rows(rows, neighbors, count, u + DESTINATIONS_AHEAD, 0)
        first, n = u * fan_out, count[u]
        if rule != GIVEN:
            if own.shape[0]:
                own_row[0, 0] = u
                _dots(own, 0, num_heads, own_rows, own_row, 0, 1, offset, 0, width)
            q = min(u * num_heads, query.shape[0] - num_heads)
            _dots(query, q, num_heads, rows, neighbors, u, n, scores, first, width)
            _weigh(rule, slope, offset, scores, alpha, first, n, heads)
            for e in range(first + n, first + fan_out):
                store(alpha, e, 0, fill(rows.dtype.type(0), heads))
        at = u % PRODUCTS_AT_ONCE
        first_sum = (at if projected else u) * num_sums
        if num_sums < num_heads:
            for e in range(first, first + n):
                weight[e, 0] = total(load(alpha, e, 0, heads)) / rows.dtype.type(num_heads)
        _clear(z, first_sum, first_sum + num_sums, width)
        _spread(z, first_sum, num_sums, rows, neighbors, u, n, weight, first, width)
        if projected and (at == PRODUCTS_AT_ONCE - 1 or u == neighbors.shape[0] - 1):
            _products(out, u - at, at + 1, z, 0, value, num_sums, out_width)


@njit(**KERNEL)
def backward(  # type: ignore[no-untyped-def]
    rows, own_rows, neighbors, count, rule, slope, value, scores, alpha, grad_out, grad_z, grad_scores, grad_offset,
    grad_query, grad_own, grad_value, heads, sums, width,
):  # fmt: skip
    """Gradients of the scores (of the weights, if those are given), and with them of the queries.

    Where there is a `value`, also its gradient, and those of the aggregates, which are made again.
    """
    num_dst, fan_out = neighbors.shape
    num_heads, num_sums, kind = len(heads), len(sums), rows.dtype.type
    own_row = np.zeros((1, 1), neighbors.dtype)
    grad_query[:] = 0
    grad_own[:] = 0
    grad_value[:] = 0
    z = np.zeros((PRODUCTS_AT_ONCE * num_sums, rows.shape[1]), rows.dtype)
    for u in range(num_dst):
        _prefetch_rows(rows, neighbors, count, u + DESTINATIONS_AHEAD, 0)
        first, n = u * fan_out, count[u]
        if value.shape[0]:
            at = u % PRODUCTS_AT_ONCE
            if at == 0:
                _products(grad_z, u, min(PRODUCTS_AT_ONCE, num_dst - u), grad_out, u, value, num_sums, width)
            _clear(z, at * num_sums, (at + 1) * num_sums, width)
            _spread(z, at * num_sums, num_sums, rows, neighbors, u, n, alpha, first, width)
            if at == PRODUCTS_AT_ONCE - 1 or u == num_dst - 1:
                _add_products(grad_value, grad_out, u - at, at + 1, z, num_sums, width)
        _dots(grad_z, u * num_sums, num_sums, rows, neighbors, u, n, grad_scores, first, width)
        if num_sums < num_heads:
            for e in range(first, first + n):
                store(grad_scores, e, 0, fill(grad_scores[e, 0] / kind(num_heads), heads))
        for e in range(first + n, first + fan_out):
            store(grad_scores, e, 0, fill(kind(0), heads))
        if rule == GIVEN:
            continue
        _weigh_backward(rule, slope, scores, alpha, grad_scores, grad_offset, first, n, u, heads)
        q = min(u * num_heads, grad_query.shape[0] - num_heads)
        _spread(grad_query, q, num_heads, rows, neighbors, u, n, grad_scores, first, width)
        if grad_own.shape[0]:
            own_row[0, 0] = u
            _spread(grad_own, 0, num_heads, own_rows, own_row, 0, 1, grad_offset, u, width)


@njit(**KERNEL)
def scatter(  # type: ignore[no-untyped-def]
    neighbors, count, rule, query, own, weight, grad_z, grad_scores, grad_offset, first_dst, first_source, num_open,
    grad_rows, heads, sums, width,
):  # fmt: skip
    """Adds to the gradients of the rows of a range of sources, which starts at `first_source`.

    Of the range, the first `num_open` rows have numbers already; the others are set. `first_dst` is the source that
    is the first destination.
    """
    fan_out, num_heads, num_sums = neighbors.shape[1], len(heads), len(sums)
    zero = fill(grad_rows.dtype.type(0), width)
    for u in range(neighbors.shape[0]):
        # those that are not open yet come one after the other
        _prefetch_rows(grad_rows[:num_open], neighbors, count, u + DESTINATIONS_AHEAD, first_source)
        q = min(u * num_heads, query.shape[0] - num_heads)
        d = first_dst + u - first_source
        if own.shape[0] and 0 <= d < grad_rows.shape[0]:
            num_open = _open_rows(grad_rows, num_open, d + 1, width)
            for i in range(0, grad_rows.shape[1], len(width)):
                x = load(grad_rows, d, i, width)
                store(grad_rows, d, i, _weighted(x, own, 0, num_heads, grad_offset, u, i, width))
        for e in range(u * fan_out, u * fan_out + count[u]):
            s = neighbors[u, e - u * fan_out] - first_source
            if 0 <= s < grad_rows.shape[0]:
                num_open = _open_rows(grad_rows, num_open, s, width)
                for i in range(0, grad_rows.shape[1], len(width)):
                    x = load(grad_rows, s, i, width) if s < num_open else zero
                    x = _weighted(x, grad_z, u * num_sums, num_sums, weight, e, i, width)
                    if rule != GIVEN:
                        x = _weighted(x, query, q, num_heads, grad_scores, e, i, width)
                    store(grad_rows, s, i, x)
                num_open = max(num_open, s + 1)
    _open_rows(grad_rows, num_open, grad_rows.shape[0], width)


@njit(**STEP)
def _clear(rows, first, end, width):  # type: ignore[no-untyped-def]
    for row in range(first, end):
        for i in range(0, rows.shape[1], len(width)):
            store(rows, row, i, fill(rows.dtype.type(0), width))


@njit(**STEP)
def _products(out, first_out, number, left, first_left, right, num_sums, width):  # type: ignore[no-untyped-def]
    """out[(first_out + k)*G + g] = sum_j left[(first_left + k)*G + g, j] right[g*J + j], for up to four k.

    Of those that are fewer, the last stands for the others too.
    """
    size = left.shape[1]
    k1, k2, k3 = min(1, number - 1), min(2, number - 1), min(3, number - 1)
    for g in range(num_sums):
        e, u = first_left * num_sums + g, first_out * num_sums + g
        e1, e2, e3 = e + k1 * num_sums, e + k2 * num_sums, e + k3 * num_sums
        for i in range(0, out.shape[1], len(width)):
            a = fill(out.dtype.type(0), width)
            b, c, d = a, a, a
            for j in range(size):
                x = load(right, g * size + j, i, width)
                a, b = fma(x, left[e, j], a), fma(x, left[e1, j], b)
                c, d = fma(x, left[e2, j], c), fma(x, left[e3, j], d)
            store(out, u + k3 * num_sums, i, d)
            store(out, u + k2 * num_sums, i, c)
            store(out, u + k1 * num_sums, i, b)
            store(out, u, i, a)


@njit(**STEP)
def _add_products(grad_value, grad_out, first, number, z, num_sums, width):  # type: ignore[no-untyped-def]
    """grad_value[g*O + o] += sum_k grad_out[(first + k)*G + g, o] z[k*G + g] over up to four destinations k.

    Of those that are fewer, the last stands for the others, times 0.
    """
    size, kind = grad_out.shape[1], z.dtype.type
    m1, m2, m3 = kind(number > 1), kind(number > 2), kind(number > 3)
    k1, k2, k3 = min(1, number - 1), min(2, number - 1), min(3, number - 1)
    for g in range(num_sums):
        r1, r2, r3 = k1 * num_sums + g, k2 * num_sums + g, k3 * num_sums + g
        e = first * num_sums
        for i in range(0, z.shape[1], len(width)):
            a, b = load(z, g, i, width), load(z, r1, i, width) * m1
            c, d = load(z, r2, i, width) * m2, load(z, r3, i, width) * m3
            for o in range(size):
                x = fma(a, grad_out[e + g, o], load(grad_value, g * size + o, i, width))
                x = fma(c, grad_out[e + r2, o], fma(b, grad_out[e + r1, o], x))
                store(grad_value, g * size + o, i, fma(d, grad_out[e + r3, o], x))


@njit(**STEP)
def _open_rows(rows, num_open, end, width):  # type: ignore[no-untyped-def]
    """Zeroes the rows before `end` that are not open yet; returns how many are open now.

    A sampler numbers sources in the order in which they appear, so there are next to none that have to be zeroed.
    """
    _clear(rows, num_open, end, width)
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
def _dots(heads, first, num_heads, rows, neighbors, u, n, out, edge, width):  # type: ignore[no-untyped-def]
    """out[edge + f, h] = heads[first + h] . rows[neighbors[u, f]] for the n neighbours of destination u."""
    zero = rows.dtype.type(0)
    h = 0
    # four heads at a time read a row once
    while h + 4 <= num_heads:
        for i in range(0, rows.shape[1], len(width)):
            a, b = load(heads, first + h, i, width), load(heads, first + h + 1, i, width)
            c, d = load(heads, first + h + 2, i, width), load(heads, first + h + 3, i, width)
            for f in range(n):
                e, row = edge + f, neighbors[u, f]
                if f + EDGES_AHEAD < n:
                    prefetch_lanes(rows, neighbors[u, f + EDGES_AHEAD], i, width)
                x = load(rows, row, i, width)
                p, q, r, s = dot(x, a), dot(x, b), dot(x, c), dot(x, d)
                if i > 0:
                    p, q, r, s = p + out[e, h], q + out[e, h + 1], r + out[e, h + 2], s + out[e, h + 3]
                out[e, h], out[e, h + 1], out[e, h + 2], out[e, h + 3] = p, q, r, s
        h += 4
    while h < num_heads:
        for i in range(0, rows.shape[1], len(width)):
            a = load(heads, first + h, i, width)
            for f in range(n):
                if f + EDGES_AHEAD < n:
                    prefetch_lanes(rows, neighbors[u, f + EDGES_AHEAD], i, width)
                before = out[edge + f, h] if i > 0 else zero
                out[edge + f, h] = before + dot(load(rows, neighbors[u, f], i, width), a)
        h += 1


@njit(**STEP)
def _spread(heads, first, num_heads, rows, neighbors, u, n, weight, edge, width):  # type: ignore[no-untyped-def]
    """heads[first + h] += sum_f weight[edge + f, h] rows[neighbors[u, f]] over the n neighbours of destination u."""
    h = 0
    while h + 4 <= num_heads:
        g = first + h
        for i in range(0, rows.shape[1], len(width)):
            a, b = load(heads, g, i, width), load(heads, g + 1, i, width)
            c, d = load(heads, g + 2, i, width), load(heads, g + 3, i, width)
            for f in range(n):
                x, e = load(rows, neighbors[u, f], i, width), edge + f
                a, b = fma(x, weight[e, h], a), fma(x, weight[e, h + 1], b)
                c, d = fma(x, weight[e, h + 2], c), fma(x, weight[e, h + 3], d)
            store(heads, g, i, a)
            store(heads, g + 1, i, b)
            store(heads, g + 2, i, c)
            store(heads, g + 3, i, d)
        h += 4
    while h < num_heads:
        for i in range(0, rows.shape[1], len(width)):
            a = load(heads, first + h, i, width)
            for f in range(n):
                a = fma(load(rows, neighbors[u, f], i, width), weight[edge + f, h], a)
            store(heads, first + h, i, a)
        h += 1


@njit(**STEP)
def _weighted(x, heads, first, num_heads, weight, edge, i, width):  # type: ignore[no-untyped-def]
    """x + sum_h weight[edge, h] heads[first + h, i : i + width]"""
    for h in range(num_heads):
        x = fma(load(heads, first + h, i, width), weight[edge, h], x)
    return x


@njit(**STEP)
def _weigh(rule, slope, offset, scores, alpha, first, n, heads):  # type: ignore[no-untyped-def]
    """Adds the offset to the scores of one destination, in rows first to first + n - 1, and makes alpha of them."""
    kind = scores.dtype.type
    zero, one = fill(kind(0), heads), fill(kind(1), heads)
    limit, least = fill(kind(MAX_EXPONENT), heads), fill(kind(MIN_SCORE_SUM), heads)
    top, whole, shift = fill(kind(-np.inf), heads), zero, load(offset, 0, 0, heads)
    for e in range(first, first + n):
        s = load(scores, e, 0, heads) + shift
        store(scores, e, 0, s)
        if rule == EXP:
            s = s * exp(choose(s, limit, limit, s))
        elif rule != LINEAR:
            s = choose(zero, s, s * slope, s)
        store(alpha, e, 0, s)
        top = choose(s, top, s, top)
    for e in range(first, first + n):
        a = load(alpha, e, 0, heads)
        if rule != LINEAR:
            a = exp(a - top)
            store(alpha, e, 0, a)
        whole = whole + a
    factor, share = one / whole, one / kind(n)
    for e in range(first, first + n):
        a = load(alpha, e, 0, heads) * factor
        if rule == LINEAR:
            a = choose(whole, least, a, share)
        store(alpha, e, 0, a)


@njit(**STEP)
def _weigh_backward(  # type: ignore[no-untyped-def]
    rule, slope, scores, alpha, grad, grad_offset, first, n, u, heads
):  # fmt: skip
    """Turns the gradients of destination u's weights into those of its scores, and sums them to that of its offset."""
    kind = scores.dtype.type
    zero, one = fill(kind(0), heads), fill(kind(1), heads)
    limit, least = fill(kind(MAX_EXPONENT), heads), fill(kind(MIN_SCORE_SUM), heads)
    mean, whole, summed = zero, zero, zero
    for e in range(first, first + n):
        mean = fma(load(alpha, e, 0, heads), load(grad, e, 0, heads), mean)
        whole = whole + load(scores, e, 0, heads)
    for e in range(first, first + n):
        s, change = load(scores, e, 0, heads), load(grad, e, 0, heads) - mean
        if rule == LINEAR:
            change = choose(whole, least, change / whole, zero)
        else:
            change = change * load(alpha, e, 0, heads)
            if rule == EXP:
                change = change * exp(choose(s, limit, limit, s)) * choose(s, limit, one, s + one)
            else:
                change = change * choose(s, zero, one, fill(slope, heads))
        store(grad, e, 0, change)
        summed = summed + change
    store(grad_offset, u, 0, summed)
