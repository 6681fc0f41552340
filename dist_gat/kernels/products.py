"""`add_products`: inner products of all rows of two matrices, each the same bits whatever else is multiplied.

A library's product of matrices may sum in an order that depends on the shape, so that a user's scores would depend on
who else is asked about. Here every inner product is one chain of sums over blocks of columns, then halves added to
each other, then what columns are left over; rows are taken in tiles of four by four.

Shape legend: n users, m items, R columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba import njit

from dist_gat.kernels.lanes import fill, fma, halved, known, load
from dist_gat.kernels.threads import cut, in_threads

TILE = 4
# sixteen sums of a tile fill half of the registers of AVX-512
LANES = 16 if get_host_cpu_features().get("avx512f") else 8
# rows of items that stay in a core's cache while all users pass
STRIP, ITEMS_PER_TASK = 64, 1024


def add_products(users: Sequence[np.ndarray], items: Sequence[np.ndarray], scores_nm: np.ndarray) -> None:
    """scores_nm += users[0] @ items[0].T + …, side by side, of C-contiguous float32 matrices [n, R] and [m, R].

    items may be read-only maps of files, which are not copied: for few users the speed of memory limits.
    """
    num_users, num_items = scores_nm.shape
    assert len(users) == len(items), "rows of different kinds"
    for users_nR, items_mR in zip(users, items, strict=True):
        assert users_nR.shape[1] == items_mR.shape[1], "rows of different kinds"
        assert (len(users_nR), len(items_mR)) == (num_users, num_items), "a score for each pair"
    if not scores_nm.size:
        return

    def task(part: slice) -> None:
        for users_nR, items_mR in zip(users, items, strict=True):
            _add_products(users_nR, items_mR, part.start, part.stop, scores_nm, known(LANES))

    in_threads(task, cut(num_items, ITEMS_PER_TASK))


@njit(nogil=True, cache=True, error_model="numpy")
def _add_products(users, items, first, last, scores, width):  # type: ignore[no-untyped-def]
    for start in range(first, last, STRIP):
        stop = min(start + STRIP, last)
        end, whole = stop - 1, users.shape[0] - users.shape[0] % TILE
        # whole tiles of users, and then the users who are left over, one at a time
        for u in range(0, whole, TILE):
            for i in range(start, stop, TILE):
                i1, i2, i3 = min(i + 1, end), min(i + 2, end), min(i + 3, end)
                _add_tile(users, u, items, i, i1, i2, i3, min(TILE, stop - i), scores, width)
        for u in range(whole, users.shape[0]):
            for i in range(start, stop, TILE):
                i1, i2, i3 = min(i + 1, end), min(i + 2, end), min(i + 3, end)
                _add_line(users, u, items, i, i1, i2, i3, min(TILE, stop - i), scores, width)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _add_tile(users, u, items, i0, i1, i2, i3, num_items, scores, width):  # type: ignore[no-untyped-def]
    """Four users from u on with items i0 to i3, of which the first `num_items` count."""
    size, column, zero = users.shape[1], 0, fill(np.float32(0), width)
    a = b = c = d = (zero, zero, zero, zero)
    while column + len(width) <= size:
        y0, y1 = load(items, i0, column, width), load(items, i1, column, width)
        y2, y3 = load(items, i2, column, width), load(items, i3, column, width)
        x = load(users, u, column, width)
        a = (fma(x, y0, a[0]), fma(x, y1, a[1]), fma(x, y2, a[2]), fma(x, y3, a[3]))
        x = load(users, u + 1, column, width)
        b = (fma(x, y0, b[0]), fma(x, y1, b[1]), fma(x, y2, b[2]), fma(x, y3, b[3]))
        x = load(users, u + 2, column, width)
        c = (fma(x, y0, c[0]), fma(x, y1, c[1]), fma(x, y2, c[2]), fma(x, y3, c[3]))
        x = load(users, u + 3, column, width)
        d = (fma(x, y0, d[0]), fma(x, y1, d[1]), fma(x, y2, d[2]), fma(x, y3, d[3]))
        column += len(width)
    _add_row(users, u, items, i0, a, column, num_items, scores)
    _add_row(users, u + 1, items, i0, b, column, num_items, scores)
    _add_row(users, u + 2, items, i0, c, column, num_items, scores)
    _add_row(users, u + 3, items, i0, d, column, num_items, scores)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _add_line(users, u, items, i0, i1, i2, i3, num_items, scores, width):  # type: ignore[no-untyped-def]
    """One user with the same items: a tile would compute four times as much, more than memory takes."""
    size, column, zero = users.shape[1], 0, fill(np.float32(0), width)
    a = (zero, zero, zero, zero)
    while column + len(width) <= size:
        x = load(users, u, column, width)
        y0, y1 = load(items, i0, column, width), load(items, i1, column, width)
        y2, y3 = load(items, i2, column, width), load(items, i3, column, width)
        a = (fma(x, y0, a[0]), fma(x, y1, a[1]), fma(x, y2, a[2]), fma(x, y3, a[3]))
        column += len(width)
    _add_row(users, u, items, i0, a, column, num_items, scores)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _add_row(users, u, items, first, sums, column, num_items, scores):  # type: ignore[no-untyped-def]
    """The sums of one user with consecutive items, and the columns from `column` on."""
    for i in range(num_items):
        total = halved(sums[i])
        for left in range(column, users.shape[1]):
            total += users[u, left] * items[first + i, left]
        scores[u, first + i] += total
