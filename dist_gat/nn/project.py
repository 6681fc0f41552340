"""`project_heads`: each head's aggregate times its own part of a weight matrix.

Shape legend: D destinations, H heads, I input size, O output size per head, X = H * O.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def projected(z_DGI: Tensor, value_XI: Tensor | None) -> Tensor:
    """Aggregates as they are, or projected where there is a matrix for it."""
    return z_DGI if value_XI is None else project_heads(z_DGI, value_XI)


def project_heads(z_DHI: Tensor, weight_XI: Tensor) -> Tensor:
    """rows_DX: W_h z_uh side by side, where W_h are the rows h O to (h + 1) O - 1 of the weight."""
    dtype = torch.promote_types(z_DHI.dtype, weight_XI.dtype)
    if torch.is_autocast_enabled(z_DHI.device.type):
        dtype = torch.get_autocast_dtype(z_DHI.device.type)
    weight_HOI = weight_XI.unflatten(0, (z_DHI.shape[1], -1))
    return _ProjectHeads.apply(z_DHI.to(dtype), weight_HOI.to(dtype)).flatten(1)


class _ProjectHeads(torch.autograd.Function):
    """One matrix product a head, straight into its columns.

    As a batched product or an einsum over heads, operands and results are copied to head-major order and back,
    which costs more than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, z_DHI: Tensor, weight_HOI: Tensor) -> Tensor:
        ctx.save_for_backward(z_DHI, weight_HOI)
        rows_DHO = z_DHI.new_empty(*z_DHI.shape[:2], weight_HOI.shape[1])
        for h, weight_OI in enumerate(weight_HOI):
            torch.mm(z_DHI[:, h], weight_OI.T, out=rows_DHO[:, h])
        return rows_DHO

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_DHO: Tensor) -> tuple[Tensor, Tensor]:
        z_DHI, weight_HOI = ctx.saved_tensors
        grad_z_DHI, grad_weight_HOI = torch.empty_like(z_DHI), torch.empty_like(weight_HOI)
        for h, weight_OI in enumerate(weight_HOI):
            torch.mm(grad_DHO[:, h], weight_OI, out=grad_z_DHI[:, h])
            torch.mm(grad_DHO[:, h].T, z_DHI[:, h], out=grad_weight_HOI[h])
        return grad_z_DHI, grad_weight_HOI
