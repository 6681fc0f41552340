"""`copy_rows`: rows of one array into rows of another, straight, as a nogil numba kernel."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dist_gat.prefetch import prefetch_row
from dist_gat.threads import cut, in_threads

ROWS_AHEAD, ROWS_PER_TASK = 8, 4096


def copy_rows(source: np.ndarray, rows: np.ndarray, target: np.ndarray, places: np.ndarray) -> None:
    """target[places] = source[rows], for arrays of the same dtype and row shape.

    As numpy expression it would write all rows twice and wait for each row's cache miss. target is C-contiguous.
    """
    assert (source.shape[1:], source.dtype) == (target.shape[1:], target.dtype), "rows of different kinds"
    assert len(rows) == len(places), "as many rows as places"
    for numbers, array in ((rows, source), (places, target)):
        assert _inside(numbers, len(array)), "rows outside of their array"
    if len(rows):
        _copy_rows(source.reshape(len(source), -1), rows, target.reshape(len(target), -1), places)


def put_rows(source: Tensor, rows: Tensor, target: Tensor, places: Tensor) -> None:
    """target[places] = source[rows] of matrices of any type on any device; places are distinct."""
    if target.device.type != "cpu" or target.dtype not in (torch.float32, torch.float64):
        target.index_copy_(0, places, source.index_select(0, rows))
        return
    arrays = [x.detach().numpy() for x in (source, rows, target, places)]

    def task(part: slice) -> None:
        copy_rows(arrays[0], arrays[1][part], arrays[2], arrays[3][part])

    in_threads(task, cut(len(rows), ROWS_PER_TASK))


def _inside(rows: np.ndarray, num_rows: int) -> bool:
    return not len(rows) or (int(rows.min()) >= 0 and int(rows.max()) < num_rows)


@njit(nogil=True, cache=True)
def _copy_rows(source, rows, target, places):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        if i + ROWS_AHEAD < rows.shape[0]:
            prefetch_row(source, rows[i + ROWS_AHEAD])
            prefetch_row(target, places[i + ROWS_AHEAD])
        row, place = np.uint64(rows[i]), np.uint64(places[i])
        for j in range(target.shape[1]):
            target[place, np.uint64(j)] = source[row, np.uint64(j)]
