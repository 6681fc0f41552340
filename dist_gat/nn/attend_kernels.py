"""What `attend_cpu` does to the destinations of one task, or to a range of sources, as nogil numba kernels.

Heads stand below their destination, in two dimensions: [D*F, H] weights with row u*F + f, [D*G, I] rows with row
u*G + g, where G = `num_sums` is the number of aggregates of a destination, H or 1. Nothing here looks at bounds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dist_gat.nn.lanes import WIDTH, choose, divide, exp, fill, fma, lane, load, repeat, store, totals
from dist_gat.nn.scoring import MAX_EXPONENT, MIN_SCORE_SUM
from dist_gat.nn.weighting import Rule

GIVEN, EXP, LINEAR = Rule.GIVEN.value, Rule.EXP.value, Rule.LINEAR.value
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}
# Without inlining, every step would pass whole array descriptors, which costs more than its arithmetic.
STEP = KERNEL | {"forceinline": True}


@njit(**KERNEL)
def forward(rows, first_dst, neighbors, count, rule, slope, query, own, scores, alpha, weight, z):  # type: ignore[no-untyped-def]
    fan_out, num_heads, num_sums = neighbors.shape[1], alpha.shape[1], weight.shape[1]
    offset = np.zeros((1, num_heads), rows.dtype)
    for u in range(neighbors.shape[0]):
        first, n = u * fan_out, count[u]
        if rule != GIVEN:
            q = min(u * num_heads, query.shape[0] - num_heads)
            if own.shape[0]:
                _dots(own, 0, num_heads, rows, first_dst + u, offset, 0)
            for f in range(n):
                _dots(query, q, num_heads, rows, neighbors[u, f], scores, first + f)
            rest = num_heads % 4
            for h in range(0, num_heads - rest, 4):
                _weigh(rule, slope, offset, scores, alpha, first, n, h, 4)
            if rest:
                _weigh(rule, slope, offset, scores, alpha, first, n, num_heads - rest, rest)
            for e in range(first + n, first + fan_out):
                for h in range(num_heads):
                    alpha[e, h] = 0
        if num_sums < num_heads:
            for e in range(first, first + n):
                mean = rows.dtype.type(0)
                for h in range(num_heads):
                    mean += alpha[e, h]
                weight[e, 0] = mean / num_heads
        _spread(z, u * num_sums, num_sums, rows, neighbors, u, n, weight, first, False)


@njit(**KERNEL)
def backward(  # type: ignore[no-untyped-def]
    rows, first_dst, neighbors, count, rule, slope, query, scores, alpha, weight, grad_z, grad_scores, grad_offset,
    grad_query, grad_own, first_edge, grad_rows,
):  # fmt: skip
    """Gradients of the scores (of the weights, if those are given), with them of the queries, and what each source
    gets from its first edge in the block. `first_edge` is empty where the rows need no gradient, and `grad_scores`
    where given weights need none.
    """
    fan_out, num_heads, num_sums = neighbors.shape[1], alpha.shape[1], weight.shape[1]
    own_row = np.zeros((1, 1), neighbors.dtype)
    sources, edges = np.zeros(fan_out, neighbors.dtype), np.zeros(fan_out, neighbors.dtype)
    grad_query[:] = 0
    grad_own[:] = 0
    for u in range(neighbors.shape[0]):
        first, n = u * fan_out, count[u]
        if grad_scores.shape[0]:
            for e in range(first, first + n):
                _dots(grad_z, u * num_sums, num_sums, rows, neighbors[u, e - first], grad_scores, e)
                if num_sums < num_heads:
                    share = grad_scores[e, 0] / num_heads
                    for h in range(num_heads):
                        grad_scores[e, h] = share
            for e in range(first + n, first + fan_out):
                for h in range(num_heads):
                    grad_scores[e, h] = 0
        if rule != GIVEN:
            rest = num_heads % 4
            for h in range(0, num_heads - rest, 4):
                _weigh_backward(rule, slope, scores, alpha, grad_scores, grad_offset, first, n, u, h, 4)
            if rest:
                h = num_heads - rest
                _weigh_backward(rule, slope, scores, alpha, grad_scores, grad_offset, first, n, u, h, rest)
            q = min(u * num_heads, grad_query.shape[0] - num_heads)
            _spread(grad_query, q, num_heads, rows, neighbors, u, n, grad_scores, first, True)
            if grad_own.shape[0]:
                own_row[0, 0] = first_dst + u
                _spread(grad_own, 0, num_heads, rows, own_row, 0, 1, grad_offset, u, True)
        if first_edge.shape[0]:
            num_first = 0
            for f in range(n):
                sources[num_first], edges[num_first] = neighbors[u, f], first + f
                num_first += first_edge[neighbors[u, f]] == first_dst * fan_out + first + f
            _collect(grad_rows, sources, edges, num_first, grad_z, u * num_sums, num_sums, weight, False)
            if rule != GIVEN:
                q = min(u * num_heads, query.shape[0] - num_heads)
                _collect(grad_rows, sources, edges, num_first, query, q, num_heads, grad_scores, True)


@njit(**KERNEL)
def first_edges(neighbors, count, num_rows):  # type: ignore[no-untyped-def]
    """The first edge u*F + f of every source, -1 where there is none; and all edges that are not the first, in order.

    Nothing for no rows.
    """
    first_edge = np.full(num_rows, -1, np.int64)
    repeated = np.empty(neighbors.size, np.int64)
    num_repeated = 0
    for u in range(neighbors.shape[0] if num_rows else 0):
        for f in range(count[u]):
            s, e = neighbors[u, f], u * neighbors.shape[1] + f
            repeated[num_repeated] = e
            num_repeated += first_edge[s] >= 0
            if first_edge[s] < 0:
                first_edge[s] = e
    return first_edge, repeated[:num_repeated]


@njit(**KERNEL)
def scatter(  # type: ignore[no-untyped-def]
    neighbors, rule, query, own, weight, grad_z, grad_scores, grad_offset, first_edge, repeated, first_source, grad_rows
):
    """The rest of the gradients of a range of sources, which starts at `first_source`."""
    fan_out, num_heads, num_sums = neighbors.shape[1], grad_scores.shape[1], weight.shape[1]
    for s in range(grad_rows.shape[0]):
        if first_edge[first_source + s] < 0:
            for i in range(grad_rows.shape[1]):
                grad_rows[s, i] = 0
    source, edge = np.zeros(1, neighbors.dtype), np.zeros(1, neighbors.dtype)
    if own.shape[0]:
        for u in range(first_source, min(first_source + grad_rows.shape[0], neighbors.shape[0])):
            source[0], edge[0] = u - first_source, u
            _collect(grad_rows, source, edge, 1, own, 0, num_heads, grad_offset, True)
    for e in repeated:
        u = e // fan_out
        source[0], edge[0] = neighbors[u, e - u * fan_out] - first_source, e
        if 0 <= source[0] < grad_rows.shape[0]:
            _collect(grad_rows, source, edge, 1, grad_z, u * num_sums, num_sums, weight, True)
            if rule != GIVEN:
                q = min(u * num_heads, query.shape[0] - num_heads)
                _collect(grad_rows, source, edge, 1, query, q, num_heads, grad_scores, True)


@njit(**STEP)
def _dots(heads, first, num_heads, rows, row, out, edge):  # type: ignore[no-untyped-def]
    """out[edge, h] = heads[first + h] . rows[row]"""
    zero = fill(rows.dtype.type(0))
    size = rows.shape[1]
    rest = size % WIDTH
    h = 0
    # four heads at a time read the row once
    while h + 4 <= num_heads:
        sums = zero, zero, zero, zero
        for i in range(0, size - rest, WIDTH):
            sums = _four_dots(heads, first + h, rows, row, i, WIDTH, sums)
        if rest:
            sums = _four_dots(heads, first + h, rows, row, size - rest, rest, sums)
        store(out, edge, h, 4, totals(*sums))
        h += 4
    while h < num_heads:
        a = zero
        for i in range(0, size, WIDTH):
            width = min(WIDTH, size - i)
            a = fma(load(rows, row, i, width), load(heads, first + h, i, width), a)
        out[edge, h] = lane(totals(a, a, a, a), 0)
        h += 1


@njit(**STEP)
def _four_dots(heads, first, rows, row, i, width, sums):  # type: ignore[no-untyped-def]
    a, b, c, d = sums
    x = load(rows, row, i, width)
    a, b = fma(x, load(heads, first, i, width), a), fma(x, load(heads, first + 1, i, width), b)
    c, d = fma(x, load(heads, first + 2, i, width), c), fma(x, load(heads, first + 3, i, width), d)
    return a, b, c, d


@njit(**STEP)
def _spread(heads, first, num_heads, rows, neighbors, u, n, weight, edge, add):  # type: ignore[no-untyped-def]
    """heads[first + h] = sum_f weight[edge + f, h] rows[neighbors[u, f]] over the n neighbours of u; or +=."""
    rest = rows.shape[1] % WIDTH
    full = rows.shape[1] - rest
    for i in range(0, full, WIDTH):
        _spread_part(heads, first, num_heads, rows, neighbors, u, n, weight, edge, add, i, WIDTH)
    if rest:
        _spread_part(heads, first, num_heads, rows, neighbors, u, n, weight, edge, add, full, rest)


@njit(**STEP)
def _spread_part(heads, first, num_heads, rows, neighbors, u, n, weight, edge, add, i, width):  # type: ignore[no-untyped-def]
    zero = fill(rows.dtype.type(0))
    h = 0
    # the sums of four heads stay in registers
    while h + 4 <= num_heads:
        a, b, c, d = zero, zero, zero, zero
        if add:
            a, b = load(heads, first + h, i, width), load(heads, first + h + 1, i, width)
            c, d = load(heads, first + h + 2, i, width), load(heads, first + h + 3, i, width)
        for f in range(n):
            x, e = load(rows, neighbors[u, f], i, width), edge + f
            a, b = fma(repeat(weight, e, h), x, a), fma(repeat(weight, e, h + 1), x, b)
            c, d = fma(repeat(weight, e, h + 2), x, c), fma(repeat(weight, e, h + 3), x, d)
        store(heads, first + h, i, width, a)
        store(heads, first + h + 1, i, width, b)
        store(heads, first + h + 2, i, width, c)
        store(heads, first + h + 3, i, width, d)
        h += 4
    while h < num_heads:
        a = load(heads, first + h, i, width) if add else zero
        for f in range(n):
            a = fma(repeat(weight, edge + f, h), load(rows, neighbors[u, f], i, width), a)
        store(heads, first + h, i, width, a)
        h += 1


@njit(**STEP)
def _collect(rows, sources, edges, n, heads, first, num_heads, weight, add):  # type: ignore[no-untyped-def]
    """rows[sources[k]] = sum_h weight[edges[k], h] heads[first + h] for k < n; or +=."""
    rest = rows.shape[1] % WIDTH
    full = rows.shape[1] - rest
    for i in range(0, full, WIDTH):
        _collect_part(rows, sources, edges, n, heads, first, num_heads, weight, add, i, WIDTH)
    if rest:
        _collect_part(rows, sources, edges, n, heads, first, num_heads, weight, add, full, rest)


@njit(**STEP)
def _collect_part(rows, sources, edges, n, heads, first, num_heads, weight, add, i, width):  # type: ignore[no-untyped-def]
    zero = fill(rows.dtype.type(0))
    h = 0
    # the rows of four heads stay in registers
    while h + 4 <= num_heads:
        a, b = load(heads, first + h, i, width), load(heads, first + h + 1, i, width)
        c, d = load(heads, first + h + 2, i, width), load(heads, first + h + 3, i, width)
        for k in range(n):
            e, x = edges[k], zero
            if add or h > 0:
                x = load(rows, sources[k], i, width)
            x = fma(repeat(weight, e, h + 1), b, fma(repeat(weight, e, h), a, x))
            x = fma(repeat(weight, e, h + 3), d, fma(repeat(weight, e, h + 2), c, x))
            store(rows, sources[k], i, width, x)
        h += 4
    while h < num_heads:
        a = load(heads, first + h, i, width)
        for k in range(n):
            x = load(rows, sources[k], i, width) if add or h > 0 else zero
            store(rows, sources[k], i, width, fma(repeat(weight, edges[k], h), a, x))
        h += 1


@njit(**STEP)
def _weigh(rule, slope, offset, scores, alpha, first, n, h, width):  # type: ignore[no-untyped-def]
    """Adds the offset to the scores of `width` heads of a destination, in rows first to first + n - 1; makes alpha."""
    kind = scores.dtype.type
    zero, one, minus, factor = fill(kind(0)), fill(kind(1)), fill(kind(-1)), fill(kind(slope))
    limit, smallest = fill(kind(MAX_EXPONENT)), fill(kind(MIN_SCORE_SUM))
    own, top, total = load(offset, 0, h, width), fill(kind(-np.inf)), zero
    for e in range(first, first + n):
        s = fma(load(scores, e, h, width), one, own)
        store(scores, e, h, width, s)
        if rule == EXP:
            s = fma(s, exp(choose(s, limit, s, limit)), zero)
        elif rule != LINEAR:
            s = choose(s, zero, fma(s, factor, zero), s)
        store(alpha, e, h, width, s)
        top = choose(top, s, s, top)
    for e in range(first, first + n):
        x = load(alpha, e, h, width)
        if rule != LINEAR:
            x = exp(fma(top, minus, x))
            store(alpha, e, h, width, x)
        total = fma(x, one, total)
    scale, even = divide(one, total), fill(kind(1) / kind(max(n, 1)))
    for e in range(first, first + n):
        x = fma(load(alpha, e, h, width), scale, zero)
        store(alpha, e, h, width, choose(smallest, total, x, even) if rule == LINEAR else x)


@njit(**STEP)
def _weigh_backward(rule, slope, scores, alpha, grad, grad_offset, first, n, u, h, width):  # type: ignore[no-untyped-def]
    """Turns the gradients of `width` heads' weights into those of the scores, and sums these to that of the offset."""
    kind = scores.dtype.type
    zero, one, minus, factor = fill(kind(0)), fill(kind(1)), fill(kind(-1)), fill(kind(slope))
    limit, smallest = fill(kind(MAX_EXPONENT)), fill(kind(MIN_SCORE_SUM))
    mean, total, offset = zero, zero, zero
    for e in range(first, first + n):
        mean = fma(load(alpha, e, h, width), load(grad, e, h, width), mean)
        total = fma(load(scores, e, h, width), one, total)
    for e in range(first, first + n):
        s, change = load(scores, e, h, width), fma(mean, minus, load(grad, e, h, width))
        if rule == LINEAR:
            change = choose(smallest, total, divide(change, total), zero)
        else:
            change = fma(change, load(alpha, e, h, width), zero)
            if rule == EXP:
                slope_of_s = fma(exp(choose(s, limit, s, limit)), choose(limit, s, one, fma(s, one, one)), zero)
            else:
                slope_of_s = choose(zero, s, one, factor)
            change = fma(change, slope_of_s, zero)
        store(grad, e, h, width, change)
        offset = fma(change, one, offset)
    store(grad_offset, u, h, width, offset)
