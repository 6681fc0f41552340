"""`RowAdam`: torch's SparseAdam, with one fused pass over the touched rows.

Shape legend: O rows of the table, N rows with a gradient, E row size.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dist_gat.kernels.large_pages import large_zeros
from dist_gat.kernels.row_adam_numba import update_rows_cpu
from dist_gat.optim.row_gradient import merge_rows

MOMENTS = ("exp_avg", "exp_avg_sq")
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
            # no moments yet, or moments of another optimiser
            moments = new_moments(weight)
            for name, moment in moments.items():
                state[name] = moment.copy_(state[name]) if name in state else moment
        state["step"] += 1
        beta1, beta2 = group["betas"]
        size = group["lr"] * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        update = update_rows_cpu
        if weight.device.type == "cuda":
            from dist_gat.kernels.row_adam_triton import update_rows_gpu as update
        mean, square = (state[name] for name in MOMENTS)
        rows, values = gradient.indices()[0], gradient.values().contiguous()
        update(weight.detach(), mean, square, rows, values, 1 - beta1, 1 - beta2, group["eps"], -size)


def has_kernel(table: Tensor) -> bool:
    """Whether a kernel updates it in one pass. The kernel of a GPU needs Triton, which CUDA builds of torch bring."""
    device = table.device.type
    return table.dtype in KERNEL_TYPES.get(device, ()) and (device == "cpu" or find_spec("triton") is not None)


def new_moments(table: Tensor) -> dict[str, Tensor]:
    """SparseAdam's `exp_avg` and `exp_avg_sq` before the first step: zeros like a table [O, E].

    On a CPU a row's two moments lie side by side, which takes a third off the time to update scattered rows.
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
