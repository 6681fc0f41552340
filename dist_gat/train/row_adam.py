"""`RowAdam`: torch's SparseAdam, with one fused pass over the touched rows on a CPU.

Shape legend: O rows of the table, N rows with a gradient, E row size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dist_gat.nn.threads import cut, in_threads
from dist_gat.prefetch import prefetch_row
from dist_gat.train.row_gradient import merge_rows

ROWS_PER_TASK, ROWS_AHEAD = 1024, 2
FUSED = (torch.float32, torch.float64)


class RowAdam(torch.optim.SparseAdam):
    """The update and the state of `torch.optim.SparseAdam`, to the rounding of the last bit.

    m += (1 - b1) (g - m), v += (1 - b2) (g^2 - v), w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps) on the
    rows with a gradient. torch does this in a dozen passes over copies of them, and searches the table for every
    row; it was most of a training step.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        tables = [weight for group in self.param_groups for weight in group["params"]]
        if closure is not None or any(x.device.type != "cpu" or x.dtype not in FUSED for x in tables):
            return super().step(closure)
        for group in self.param_groups:
            assert not group["maximize"], "rows are trained to lower the loss"
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, merge_rows(weight.grad), group)
        return None

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": 0, "exp_avg": zeros_of(weight), "exp_avg_sq": zeros_of(weight)}
        state["step"] += 1
        beta1, beta2 = group["betas"]
        size = group["lr"] * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        tables = [x.detach().numpy() for x in (weight, state["exp_avg"], state["exp_avg_sq"])]
        rows, values = gradient.indices()[0].numpy(), gradient.values().contiguous().numpy()
        numbers = [values.dtype.type(x) for x in (1 - beta1, 1 - beta2, group["eps"], -size)]

        def task(part: slice) -> None:
            _update_rows(*tables, rows[part], values[part], *numbers)

        in_threads(task, cut(len(rows), ROWS_PER_TASK))


def zeros_of(table: Tensor) -> Tensor:
    """Zeros like a table, on a CPU in large pages of memory where the system has them.

    numpy asks for such pages and torch does not. A step touches rows all over the table; with pages of 4 KiB most
    of them cost a walk through the page tables besides.
    """
    if table.device.type != "cpu" or table.dtype not in FUSED:
        return torch.zeros_like(table)
    return torch.from_numpy(np.zeros(table.shape, dtype=str(table.dtype).removeprefix("torch.")))


@njit(nogil=True, cache=True, error_model="numpy")
def _update_rows(weight, mean, square, rows, values, gain1, gain2, eps, size):  # type: ignore[no-untyped-def]
    for n in range(rows.shape[0]):
        if n + ROWS_AHEAD < rows.shape[0]:
            for table in (weight, mean, square):
                prefetch_row(table, rows[n + ROWS_AHEAD])
        row = rows[n]
        for i in range(values.shape[1]):
            g = values[n, i]
            m = mean[row, i] + (g - mean[row, i]) * gain1
            v = square[row, i] + (g * g - square[row, i]) * gain2
            mean[row, i], square[row, i] = m, v
            weight[row, i] += size * (m / (np.sqrt(v) + eps))
