"""Steps of the attention kernels on rows: products with heads, sums and copies, with pieces of rows in registers.

They are inlined into the kernels that call them. `width` is the `known` number of lanes in which rows are handled; it
divides their size. A destination has one row for each head, from row `first` on.
"""

from __future__ import annotations

from numba import njit

from dist_gat.kernels.lanes import dot, fill, fma, load, prefetch_lanes, store
from dist_gat.kernels.prefetch import prefetch_row

EDGES_AHEAD = 16  # how far ahead rows are prefetched
PRODUCTS_AT_ONCE = 4  # destinations that share one read of a matrix row
# Without inlining, every step would pass whole array descriptors, which costs more than its arithmetic.
STEP = {"nogil": True, "cache": True, "error_model": "numpy", "forceinline": True}


@njit(**STEP)
def clear_rows(rows, first, end, width):  # type: ignore[no-untyped-def]
    """rows[first:end] = 0"""
    for row in range(first, end):
        for i in range(0, rows.shape[1], len(width)):
            store(rows, row, i, fill(rows.dtype.type(0), width))


@njit(**STEP)
def copy_row(rows, row, others, other, width):  # type: ignore[no-untyped-def]
    """rows[row] = others[other]"""
    for i in range(0, rows.shape[1], len(width)):
        store(rows, row, i, load(others, other, i, width))


@njit(**STEP)
def add_row(rows, row, others, other, width):  # type: ignore[no-untyped-def]
    """rows[row] += others[other]"""
    for i in range(0, rows.shape[1], len(width)):
        store(rows, row, i, load(rows, row, i, width) + load(others, other, i, width))


@njit(**STEP)
def prefetch_neighbors(rows, neighbors, count, u):  # type: ignore[no-untyped-def]
    """Prefetch the rows of the neighbours of destination u, if it exists."""
    if u < neighbors.shape[0]:
        for f in range(count[u]):
            prefetch_row(rows, neighbors[u, f])


@njit(**STEP)
def dots(heads, first, num_heads, rows, neighbors, u, n, out, edge, width):  # type: ignore[no-untyped-def]
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
def add_weighted(heads, first, num_heads, rows, neighbors, u, n, weight, edge, width):  # type: ignore[no-untyped-def]
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
def mix_heads(rows, row, n, heads, first, num_heads, weight, edge, width):  # type: ignore[no-untyped-def]
    """rows[row + f] += sum_h weight[edge + f, h] heads[first + h] for f < n."""
    h = 0
    while h + 4 <= num_heads:
        g = first + h
        for i in range(0, rows.shape[1], len(width)):
            a, b = load(heads, g, i, width), load(heads, g + 1, i, width)
            c, d = load(heads, g + 2, i, width), load(heads, g + 3, i, width)
            for f in range(n):
                x, e = load(rows, row + f, i, width), edge + f
                x = fma(b, weight[e, h + 1], fma(a, weight[e, h], x))
                store(rows, row + f, i, fma(d, weight[e, h + 3], fma(c, weight[e, h + 2], x)))
        h += 4
    while h < num_heads:
        for i in range(0, rows.shape[1], len(width)):
            a = load(heads, first + h, i, width)
            for f in range(n):
                x = load(rows, row + f, i, width)
                store(rows, row + f, i, fma(a, weight[edge + f, h], x))
        h += 1


@njit(**STEP)
def products(out, first_out, number, left, first_left, right, num_sums, width):  # type: ignore[no-untyped-def]
    """out[(first_out + k)*G + g] = sum_j left[(first_left + k)*G + g, j] right[g*J + j], for up to four k.

    Where there are fewer, the last one takes the place of the others.
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
def add_products(sums, first_sum, grad_out, first, number, z, num_sums, width):  # type: ignore[no-untyped-def]
    """sums[first_sum + g*O + o] += sum_k grad_out[(first + k)*G + g, o] z[k*G + g] over up to four destinations k.

    Where there are fewer, the last one takes the place of the others, times 0.
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
                x = fma(a, grad_out[e + g, o], load(sums, first_sum + g * size + o, i, width))
                x = fma(c, grad_out[e + r2, o], fma(b, grad_out[e + r1, o], x))
                store(sums, first_sum + g * size + o, i, fma(d, grad_out[e + r3, o], x))
