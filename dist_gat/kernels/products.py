"""`add_products`: inner products of all rows of two matrices, each the same bits whatever else is multiplied.

A library's product of matrices may sum in an order that depends on the shape, so that a user's scores would depend on
who else is asked about. Here every inner product is one chain of sums over blocks of columns, then halves added to
each other, then what columns are left over. There are two ways to the same bits:

* Few users: lanes are columns, and rows are read where they lie, once. The speed of memory limits it.
* Many users: lanes are items. Lane l of the chain above is a chain of its own over the columns l, l + LANES, ..., so
  rows are packed in that order, and one class of columns after the other stays in the innermost cache.

Shape legend: n users, m items, R columns, P panels of users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba import njit

from dist_gat.kernels.atomics import take
from dist_gat.kernels.lanes import fill, fma, halved, known, load, store
from dist_gat.kernels.threads import in_all_threads

TILE = 4
# sixteen sums of a tile fill half of the registers of AVX-512
LANES = 16 if get_host_cpu_features().get("avx512f") else 8
# rows of items that stay in a core's cache while all users pass
STRIP, ITEMS_PER_TASK = 64, 1024
# From so many users on, packing the items pays (measured: 150). Twelve sums, of four users and three times LANES
# items, fit the registers of AVX2 too; one class of columns of a panel of users and of one of items fits 32 KiB.
MANY, GROUP, VECTORS, USERS_IN_PANEL, PANELS_PER_TASK = 192, 4, 3, 48, 4


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

    is_many = num_users >= MANY
    kernel, per_task = (_add_panels, PANELS_PER_TASK * VECTORS * LANES) if is_many else (_add_products, ITEMS_PER_TASK)
    sides = [packed_panels(users_nR) for users_nR in users] if is_many else users

    # the kernel takes its tasks itself: a thread that came back for each would wait for its turn in the interpreter,
    # which other requests have for milliseconds
    for side, items_mR in zip(sides, items, strict=True):
        tasks = np.zeros(1, np.int64)
        in_all_threads(-(-num_items // per_task), kernel, side, items_mR, tasks, per_task, scores_nm, known(LANES))


def packed_panels(users_nR: np.ndarray) -> np.ndarray:
    """float32 [P R, USERS_IN_PANEL]: the columns of each panel of users, in the order of `_pack`."""
    num_users, size = users_nR.shape
    panels = aligned(-(-num_users // USERS_IN_PANEL) * size, USERS_IN_PANEL)
    for panel, first in enumerate(range(0, num_users, USERS_IN_PANEL)):
        _pack(users_nR, first, panels[panel * size : (panel + 1) * size], LANES)
    return panels


@njit(nogil=True, cache=True, error_model="numpy")
def _add_products(users, items, tasks, per_task, scores, width):  # type: ignore[no-untyped-def]
    """tasks: int64 [1], how many are taken, each of `per_task` items."""
    first = take(tasks, 0) * per_task
    while first < scores.shape[1]:
        _add_strips(users, items, first, min(first + per_task, scores.shape[1]), scores, width)
        first = take(tasks, 0) * per_task


@njit(nogil=True, cache=True, error_model="numpy")
def _add_strips(users, items, first, last, scores, width):  # type: ignore[no-untyped-def]
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


@njit(nogil=True, cache=True, error_model="numpy")
def _pack(rows, first, packed, num_lanes):  # type: ignore[no-untyped-def]
    """Rows from `first` on as the columns of packed [R, ...], 0 beyond the last: all columns of lane 0, of lane 1, ...,
    then what columns are left over."""
    num_rows, size = rows.shape
    steps = size // num_lanes
    for k in range(packed.shape[1]):
        if first + k >= num_rows:
            packed[:, k] = 0
            continue
        row = rows[first + k]
        # in the order of what is written: lanes may lie a multiple of 4 KiB apart, in the same few places of a cache
        for lane in range(num_lanes):
            for step in range(steps):
                packed[lane * steps + step, k] = row[step * num_lanes + lane]
        for column in range(steps * num_lanes, size):
            packed[column, k] = row[column]


@njit(nogil=True, cache=True, error_model="numpy")
def aligned(num_rows, num_columns):  # type: ignore[no-untyped-def]
    """A matrix without values whose first number begins a cache line, so that lanes lie in one each."""
    numbers = np.empty(num_rows * num_columns + 16, np.float32)
    first = (-numbers.ctypes.data // 4) % 16
    return numbers[first : first + num_rows * num_columns].reshape(num_rows, num_columns)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_panels(users, items, tasks, per_task, scores, width):  # type: ignore[no-untyped-def]
    """users: see `packed_panels`. tasks: see `_add_products`."""
    first = take(tasks, 0) * per_task
    while first < scores.shape[1]:
        _add_some_panels(users, items, first, min(first + per_task, scores.shape[1]), scores, width)
        first = take(tasks, 0) * per_task


@njit(nogil=True, cache=True, error_model="numpy")
def _add_some_panels(users, items, first, last, scores, width):  # type: ignore[no-untyped-def]
    size, lanes = items.shape[1], len(width)
    steps, num_items = size // lanes, VECTORS * lanes
    num_panels = (last - first + num_items - 1) // num_items
    panels, one = aligned(num_panels * size, num_items), aligned(1, lanes)
    stride = USERS_IN_PANEL * VECTORS
    sums = aligned(lanes * stride, lanes)
    for i in range(num_panels):
        _pack(items, first + i * num_items, panels[i * size : (i + 1) * size], lanes)
    for start in range(0, scores.shape[0], USERS_IN_PANEL):
        num_users, u = min(USERS_IN_PANEL, scores.shape[0] - start), start // USERS_IN_PANEL * size
        for i in range(num_panels):
            for lane in range(lanes):
                for k in range(0, num_users, GROUP):
                    at = lane * stride + k * VECTORS
                    _sum_up(users, u + lane * steps, k, panels, i * size + lane * steps, steps, sums, at, width)
            for k in range(num_users):
                for vector in range(VECTORS):
                    found = _halved_sums(sums, k * VECTORS + vector, stride, width)
                    for column in range(steps * lanes, size):
                        y = load(panels, i * size + column, vector * lanes, width)
                        found = found + y * users[u + column, k]
                    begin = first + i * num_items + vector * lanes
                    _add_lanes(scores, start + k, begin, last, found, one, width)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _add_lanes(scores, u, begin, last, found, one, width):  # type: ignore[no-untyped-def]
    """To the scores of a user from item `begin` on; the panel may go beyond the last. one: [1, lanes], scratch."""
    if begin + len(width) <= last:
        store(scores, u, begin, load(scores, u, begin, width) + found)
        return
    store(one, 0, 0, found)
    for at in range(last - begin):
        scores[u, begin + at] += one[0, at]


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _sum_up(users, u, k, items, i, steps, sums, at, width):  # type: ignore[no-untyped-def]
    """The chains of one lane, of rows from u and i on of panels: of four users, the k-th and so on, with all items."""
    lanes, zero = len(width), fill(np.float32(0), width)
    a = b = c = d = (zero, zero, zero)
    for step in range(steps):
        y0, y1 = load(items, i + step, 0, width), load(items, i + step, lanes, width)
        y2 = load(items, i + step, 2 * lanes, width)
        # an unsigned place is not looked at whether it counts from the end
        row, column = np.uint64(u + step), np.uint64(k)
        x = users[row, column]
        a = (fma(y0, x, a[0]), fma(y1, x, a[1]), fma(y2, x, a[2]))
        x = users[row, column + np.uint64(1)]
        b = (fma(y0, x, b[0]), fma(y1, x, b[1]), fma(y2, x, b[2]))
        x = users[row, column + np.uint64(2)]
        c = (fma(y0, x, c[0]), fma(y1, x, c[1]), fma(y2, x, c[2]))
        x = users[row, column + np.uint64(3)]
        d = (fma(y0, x, d[0]), fma(y1, x, d[1]), fma(y2, x, d[2]))
    for user, found in enumerate((a, b, c, d)):
        store(sums, at + 3 * user, 0, found[0])
        store(sums, at + 3 * user + 1, 0, found[1])
        store(sums, at + 3 * user + 2, 0, found[2])


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _halved_sums(sums, at, stride, width):  # type: ignore[no-untyped-def]
    """Lane by lane of items what `halved` adds: the sums of lanes of columns, `stride` rows apart."""
    return (_quarter(sums, at, 0, stride, width) + _quarter(sums, at, 2, stride, width)) + (
        _quarter(sums, at, 1, stride, width) + _quarter(sums, at, 3, stride, width)
    )


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _quarter(sums, at, lane, stride, width):  # type: ignore[no-untyped-def]
    """Every fourth lane from `lane` on, of eight or sixteen."""
    first = load(sums, at + lane * stride, 0, width)
    second = load(sums, at + (lane + 4) * stride, 0, width)
    if len(width) == 16:
        first = first + load(sums, at + (lane + 8) * stride, 0, width)
        second = second + load(sums, at + (lane + 12) * stride, 0, width)
    return first + second
