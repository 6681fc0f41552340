"""The numba kernel of `RowAdam`: one pass over the rows that a step touches.

Shape legend: O rows of the table, N rows with a gradient, E row size.
"""

from __future__ import annotations

from numba import njit
from torch import Tensor

from dist_gat.kernels.lanes import known, load, sqrt, store, width_of
from dist_gat.kernels.prefetch import prefetch_row
from dist_gat.kernels.threads import cut, in_threads

ROWS_PER_TASK, ROWS_AHEAD = 1024, 4


def update_rows_cpu(
    weight_OE: Tensor,
    mean_OE: Tensor,
    square_OE: Tensor,
    rows_N: Tensor,
    gradient_NE: Tensor,
    gain1: float,
    gain2: float,
    eps: float,
    size: float,
) -> None:
    """m += gain1 (g - m), v += gain2 (g^2 - v), w += size m / (sqrt(v) + eps) on distinct rows.

    The moments are those of `new_moments`.
    """
    num_rows, row_size = weight_OE.shape
    moments = mean_OE.as_strided((num_rows, 2 * row_size), (2 * row_size, 1)).numpy()
    table, rows, values = weight_OE.numpy(), rows_N.numpy(), gradient_NE.numpy()
    numbers = [values.dtype.type(x) for x in (gain1, gain2, eps, size)]
    width = known(width_of(row_size, values.itemsize))

    def task(part: slice) -> None:
        _update_rows(table, moments, rows[part], values[part], *numbers, width)

    in_threads(task, cut(len(rows), ROWS_PER_TASK))


@njit(nogil=True, cache=True, error_model="numpy")
def _update_rows(weight, moments, rows, values, gain1, gain2, eps, size, width):  # type: ignore[no-untyped-def]
    row_size = values.shape[1]
    for n in range(rows.shape[0]):
        if n + ROWS_AHEAD < rows.shape[0]:
            prefetch_row(weight, rows[n + ROWS_AHEAD])
            prefetch_row(moments, rows[n + ROWS_AHEAD])
        row = rows[n]
        for i in range(0, row_size, len(width)):
            g, m, v = load(values, n, i, width), load(moments, row, i, width), load(moments, row, row_size + i, width)
            m = m + (g - m) * gain1
            v = v + (g * g - v) * gain2
            store(moments, row, i, m)
            store(moments, row, row_size + i, v)
            store(weight, row, i, load(weight, row, i, width) + m / (sqrt(v) + eps) * size)
