"""`project_heads`: each head's aggregate times its own part of a weight matrix.

Shape legend: D destinations, H heads, I input size, O output size per head, X = H * O.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def project_heads(z_DHI: Tensor, weight_XI: Tensor) -> Tensor:
    """rows_DX: W_h z_uh side by side, where W_h are the rows h O to (h + 1) O - 1 of the weight."""
    dtype = torch.promote_types(z_DHI.dtype, weight_XI.dtype)
    if torch.is_autocast_enabled(z_DHI.device.type):
        dtype = torch.get_autocast_dtype(z_DHI.device.type)
    weight_HOI = weight_XI.unflatten(0, (z_DHI.shape[1], -1))
    return _ProjectHeads.apply(z_DHI.to(dtype), weight_HOI.to(dtype)).flatten(1)


class _ProjectHeads(torch.autograd.Function):
    """One matrix product a head, straight into its columns.

    As an einsum over heads, operands and results are copied to head-major order and back, which costs more than the
    arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, z_DHI: Tensor, weight_HOI: Tensor) -> Tensor:
        ctx.save_for_backward(z_DHI, weight_HOI)
        rows_DHO = z_DHI.new_empty(*z_DHI.shape[:2], weight_HOI.shape[1])
        _multiply(z_DHI.transpose(0, 1), weight_HOI.transpose(1, 2), rows_DHO.transpose(0, 1))
        return rows_DHO

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_DHO: Tensor) -> tuple[Tensor, Tensor]:
        z_DHI, weight_HOI = ctx.saved_tensors
        grad_z_DHI, grad_weight_HOI = torch.empty_like(z_DHI), torch.empty_like(weight_HOI)
        grad_HDO = grad_DHO.transpose(0, 1)
        _multiply(grad_HDO, weight_HOI, grad_z_DHI.transpose(0, 1))
        _multiply(grad_HDO.transpose(1, 2), z_DHI.transpose(0, 1), grad_weight_HOI)
        return grad_z_DHI, grad_weight_HOI


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out[h] = left[h] right[h], which may be views with any distance between rows.

    On a GPU in one launch; a CPU's batched product would copy such views first.
    """
    if out.is_cuda:
        torch.bmm(left, right, out=out)
        return
    for head_left, head_right, head_out in zip(left, right, out, strict=True):
        torch.mm(head_left, head_right, out=head_out)
