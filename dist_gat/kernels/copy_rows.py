"""`copy_rows`, `take_rows`: rows of an array straight into another; `put_rows`, `add_rows`: the same of tensors."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dist_gat.kernels.lanes import known, load, store, width_of
from dist_gat.kernels.prefetch import prefetch_row
from dist_gat.kernels.threads import cut, in_threads

ROWS_AHEAD, ROWS_PER_TASK = 8, 4096


def copy_rows(source: np.ndarray, rows: np.ndarray, target: np.ndarray, places: np.ndarray) -> None:
    """target[places] = source[rows], for arrays of the same row shape and dtype; integers may become wider.

    numpy would write all rows twice and wait for each row's cache miss. target is C-contiguous.
    """
    widens = source.dtype.kind == target.dtype.kind == "i" and source.itemsize <= target.itemsize
    assert source.shape[1:] == target.shape[1:], "rows of different kinds"
    assert source.dtype == target.dtype or widens, "rows of different kinds"
    assert len(rows) == len(places), "as many rows as places"
    if len(rows):
        is_inside = _copy_rows(source.reshape(len(source), -1), rows, target.reshape(len(target), -1), places)
        assert is_inside, "rows outside of their array"


def take_rows(source: np.ndarray, rows: np.ndarray, target: np.ndarray) -> None:
    """target[:] = source[rows], for matrices of the same dtype and number of columns.

    The target is written in order, so only rows of the source are prefetched.
    """
    assert (source.dtype, source.shape[1:]) == (target.dtype, target.shape[1:]), "rows of different kinds"
    assert len(rows) == len(target), "as many rows as places"
    is_inside = _take_rows(source, rows, target)
    assert is_inside, "rows outside of their array"


def put_rows(source: Tensor, rows: Tensor, target: Tensor, places: Tensor) -> None:
    """target[places] = source[rows] of matrices of any type on any device; places are distinct."""
    if not _has_kernel(target):
        target.index_copy_(0, places, source.index_select(0, rows))
        return
    arrays = [x.detach().numpy() for x in (source, rows, target, places)]

    def task(part: slice) -> None:
        copy_rows(arrays[0], arrays[1][part], arrays[2], arrays[3][part])

    in_threads(task, cut(len(rows), ROWS_PER_TASK))


def add_rows(source: Tensor, target: Tensor, places: Tensor) -> None:
    """target[places] += source of matrices of any type on any device; places are distinct."""
    if not (_has_kernel(target) and target.is_contiguous()):
        target.index_add_(0, places, source)
        return
    assert (source.dtype, source.shape[1:]) == (target.dtype, target.shape[1:]), "rows of different kinds"
    assert len(source) == len(places), "as many rows as places"
    added, sums, numbers = (x.detach().numpy() for x in (source.contiguous(), target, places))
    assert _inside(numbers, len(sums)), "rows outside of their array"
    width = known(width_of(target.shape[1], target.element_size()))
    in_threads(lambda part: _add_rows(added[part], sums, numbers[part], width), cut(len(numbers), ROWS_PER_TASK))


def _has_kernel(target: Tensor) -> bool:
    return target.device.type == "cpu" and target.dtype in (torch.float32, torch.float64) and target.shape[1] > 0


def _inside(rows: np.ndarray, num_rows: int) -> bool:
    return not len(rows) or (int(rows.min()) >= 0 and int(rows.max()) < num_rows)


@njit(nogil=True, cache=True)
def _copy_rows(source, rows, target, places):  # type: ignore[no-untyped-def]
    """Whether all rows and places are inside of their arrays; stops before the first one that is not."""
    num_rows, num_places = np.uint64(source.shape[0]), np.uint64(target.shape[0])
    for i in range(rows.shape[0]):
        if i + ROWS_AHEAD < rows.shape[0]:
            prefetch_row(source, rows[i + ROWS_AHEAD])
            prefetch_row(target, places[i + ROWS_AHEAD])
        row, place = np.uint64(rows[i]), np.uint64(places[i])
        if row >= num_rows or place >= num_places:
            return False
        for j in range(target.shape[1]):
            target[place, np.uint64(j)] = source[row, np.uint64(j)]
    return True


@njit(nogil=True, cache=True)
def _take_rows(source, rows, target):  # type: ignore[no-untyped-def]
    """Whether all rows are inside of their array; stops before the first one that is not."""
    for i in range(rows.shape[0]):
        if i + ROWS_AHEAD < rows.shape[0]:
            prefetch_row(source, rows[i + ROWS_AHEAD])
        row = np.uint64(rows[i])
        if row >= np.uint64(source.shape[0]):
            return False
        for j in range(target.shape[1]):
            target[np.uint64(i), np.uint64(j)] = source[row, np.uint64(j)]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _add_rows(added, sums, places, width):  # type: ignore[no-untyped-def]
    for i in range(places.shape[0]):
        if i + ROWS_AHEAD < places.shape[0]:
            prefetch_row(sums, places[i + ROWS_AHEAD])
        for j in range(0, sums.shape[1], len(width)):
            store(sums, places[i], j, load(sums, places[i], j, width) + load(added, i, j, width))
