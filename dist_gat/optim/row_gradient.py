"""The sparse gradient of the embedding rows: each row once, and its square sum.

Shape legend: O rows of the table, N rows with a gradient, E row size.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dist_gat.kernels.threads import cut, in_threads

ROWS_PER_SUM = 4096
BITS = 64


def merge_rows(gradient: Tensor) -> Tensor:
    """The sparse gradient [O, E] with every row once; where rows are distinct already, the values are not copied.

    The rows of a batch are distinct, also after the sum over ranks, but `coalesce` would sort and copy them.
    """
    if gradient.is_coalesced():
        return gradient
    if not _is_distinct(gradient._indices()[0], len(gradient)):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        gradient._indices(), gradient._values(), gradient.shape, check_invariants=False, is_coalesced=True
    )


def square_sum(values: Tensor) -> Tensor:
    """The sum of squares of [N, E], in float64 but without a copy; the same bits for any number of threads."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return torch.linalg.vector_norm(values, dtype=torch.float64).square()
    rows = values.detach().contiguous().numpy()
    sums = np.zeros(-(-len(rows) // ROWS_PER_SUM))

    def task(part: slice) -> None:
        sums[part.start // ROWS_PER_SUM] = _square_sum(rows[part])

    in_threads(task, cut(len(rows), ROWS_PER_SUM))
    return torch.tensor(sums.sum(), dtype=torch.float64)


def _is_distinct(rows_N: Tensor, num_rows: int) -> bool:
    if rows_N.device.type != "cpu":
        seen = torch.zeros(num_rows, dtype=torch.bool, device=rows_N.device)
        return int(seen.index_fill_(0, rows_N, True).sum()) == len(rows_N)
    rows = rows_N.contiguous().numpy()
    assert not len(rows) or (rows.min() >= 0 and rows.max() < num_rows), "rows outside of the table"
    return _has_no_twins(rows, np.zeros(-(-num_rows // BITS), np.uint64))


@njit(nogil=True, cache=True)
def _has_no_twins(rows, seen):  # type: ignore[no-untyped-def]
    """Whether all rows are distinct; `seen` has a bit for each row of the table."""
    for row in rows:
        word, bit = np.uint64(row) // np.uint64(BITS), np.uint64(1) << (np.uint64(row) % np.uint64(BITS))
        if seen[word] & bit:
            return False
        seen[word] |= bit
    return True


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _square_sum(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for row in range(values.shape[0]):
        for i in range(values.shape[1]):
            total += np.float64(values[row, i]) * np.float64(values[row, i])
    return total
