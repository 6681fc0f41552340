"""`RowAdam`: torch's SparseAdam, with one fused pass over the touched rows.

Shape legend: O rows of the table, N rows with a gradient, E row size.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from numba import njit
from torch import Tensor

from dist_gat.lanes import known, load, sqrt, store, width_of
from dist_gat.large_pages import large_zeros
from dist_gat.prefetch import prefetch_row
from dist_gat.threads import cut, in_threads
from dist_gat.train.row_gradient import merge_rows

MOMENTS = ("exp_avg", "exp_avg_sq")
ROWS_PER_TASK, ROWS_AHEAD = 1024, 4
KERNEL_TYPES = {"cpu": (torch.float32, torch.float64), "cuda": (torch.float32,)}


class RowAdam(torch.optim.SparseAdam):
    """The update and the state of `torch.optim.SparseAdam`, to the rounding of the last bit.

    m += (1 - b1) (g - m), v += (1 - b2) (g^2 - v), w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps) on the
    rows with a gradient. torch does this in a dozen passes over copies of them, and searches the table for every
    row; it was most of a training step.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        tables = [weight for group in self.param_groups for weight in group["params"]]
        if closure is not None or not all(map(has_kernel, tables)):
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
            state["step"] = 0
        if not len(weight):
            state["step"] += 1
            return
        assert weight.is_contiguous(), "a table's rows lie one after the other"
        if not _are_laid_out(weight, *map(state.get, MOMENTS)):
            # none yet, or those of another optimiser
            moments = new_moments(weight)
            for name, moment in moments.items():
                state[name] = moment.copy_(state[name]) if name in state else moment
        state["step"] += 1
        beta1, beta2 = group["betas"]
        size = group["lr"] * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        update = update_rows_cpu
        if weight.device.type == "cuda":
            from dist_gat.train.row_adam_triton import update_rows_gpu as update
        mean, square = (state[name] for name in MOMENTS)
        rows, values = gradient.indices()[0], gradient.values().contiguous()
        update(weight.detach(), mean, square, rows, values, 1 - beta1, 1 - beta2, group["eps"], -size)


def has_kernel(table: Tensor) -> bool:
    """Whether one pass updates it. That of a GPU needs Triton, which CUDA builds of torch bring."""
    device = table.device.type
    return table.dtype in KERNEL_TYPES.get(device, ()) and (device == "cpu" or find_spec("triton") is not None)


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


def new_moments(table: Tensor) -> dict[str, Tensor]:
    """SparseAdam's `exp_avg` and `exp_avg_sq` before the first step: zeros like a table [O, E].

    On a CPU a row's two moments lie side by side, which takes a third off the update of rows all over a table.
    """
    if table.device.type != "cpu" or table.dtype not in KERNEL_TYPES["cpu"]:
        return {name: torch.zeros_like(table) for name in MOMENTS}
    num_rows, row_size = table.shape
    both = torch.from_numpy(large_zeros((num_rows, 2, row_size), str(table.dtype).removeprefix("torch.")))
    return dict(zip(MOMENTS, both.unbind(dim=1), strict=True))


def _are_laid_out(table: Tensor, mean: Tensor | None, square: Tensor | None) -> bool:
    """Whether the moments lie as those of `new_moments` do."""
    if mean is None or square is None:
        return False
    if table.device.type != "cpu":
        return mean.is_contiguous() and square.is_contiguous()
    row_size = mean.shape[1]
    distance = square.data_ptr() - mean.data_ptr()
    return mean.stride() == square.stride() == (2 * row_size, 1) and distance == row_size * mean.element_size()


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
