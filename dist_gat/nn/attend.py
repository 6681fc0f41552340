"""`attend`: weigh the neighbours of each destination and sum their rows.

Shape legend: S sources, D destinations, F fan-out, H heads, I row size,
G heads of the aggregate (H, or 1 for their mean).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.nn.attend_cpu import attend_cpu
from dist_gat.nn.project import projected
from dist_gat.nn.scoring import exp_logits, linear_weights, softmax_weights
from dist_gat.sampling.block import Block

KERNEL_TYPES = {"cpu": (torch.float32, torch.float64), "cuda": (torch.float32, torch.bfloat16)}
Attend = Callable[[Tensor, Block, Weighting], tuple[Tensor, Tensor]]


def attend(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """z_u = sum_{i in N(u)} alpha_ui l_i, [D, G, I], and alpha_DFH, for inspection: it has no gradient.

    Where the weighting has a value, W z_u instead, [D, X].

    Fused kernels where there are some for the device and the type, else `attend_plain`; tests hold them equal.
    """
    return kernels(rows_SI.device.type, rows_SI.dtype)(rows_SI, block, weighting)


def kernels(device: str, dtype: torch.dtype) -> Attend:
    """The function for a device and a type. The kernels of a GPU need Triton, which CUDA builds of torch bring."""
    # what is exported may have torch's own operations alone
    if dtype not in KERNEL_TYPES.get(device, ()) or torch.compiler.is_compiling():
        return attend_plain
    if device == "cpu":
        return attend_cpu
    if find_spec("triton") is None:
        return attend_plain
    from dist_gat.nn.attend_gpu import attend_gpu

    return attend_gpu


def attend_plain(rows_SI: Tensor, block: Block, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """`attend` in plain torch operations, on any device and of any type; tests check the kernels against it."""
    # embedding, not indexing: the same gather, with a faster backward that is deterministic on a GPU too.
    near_DFI = functional.embedding(block.neighbors_DF, rows_SI)
    alpha_DFH = weights(rows_SI, near_DFI, block, weighting)
    weight_DFG = alpha_DFH.mean(dim=2, keepdim=True) if weighting.mean else alpha_DFH
    z_DGI = torch.bmm(weight_DFG.transpose(1, 2).to(near_DFI.dtype), near_DFI)
    return projected(z_DGI, weighting.value_XI), alpha_DFH.detach()


def weights_of(rows_SI: Tensor, block: Block, weighting: Weighting) -> Tensor:
    """alpha_DFH with its gradient, 0 for padding, in plain torch operations."""
    if weighting.alpha_DFH is not None:
        return weighting.alpha_DFH
    return weights(rows_SI, functional.embedding(block.neighbors_DF, rows_SI), block, weighting)


def weights(rows_SI: Tensor, near_DFI: Tensor, block: Block, weighting: Weighting) -> Tensor:
    """alpha_DFH, 0 for padding; `near_DFI` are the gathered rows of the neighbours."""
    if weighting.alpha_DFH is not None:
        return weighting.alpha_DFH
    assert weighting.query_QHI is not None, "scores need a query"
    scores_DFH = near_DFI @ weighting.query_QHI.transpose(1, 2)
    if weighting.own_HI is not None:
        scores_DFH = scores_DFH + (block.own_rows(rows_SI) @ weighting.own_HI.T)[:, None]
    if weighting.bias_DFH is not None:
        scores_DFH = scores_DFH + weighting.bias_DFH
    if weighting.rule == Rule.LINEAR:
        return linear_weights(scores_DFH, block)
    if weighting.rule == Rule.EXP:
        return softmax_weights(exp_logits(scores_DFH), block)
    return softmax_weights(functional.leaky_relu(scores_DFH, weighting.slope), block)


def own_and_all_rows(rows_SI: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """The destinations' rows [D, I], and all rows [S, I]; their gradients are added without a copy of all rows."""
    if block.dst_at_D is None:
        return first_rows(rows_SI, block.num_dst)
    return block.own_rows(rows_SI), rows_SI


def first_rows(rows_SI: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The first rows [number, I], and all rows [S, I], with one gradient for both.

    As a slice of its own, `rows_SI[:number]` would send back S rows of gradient, nearly all of them zero, to be added
    to the S rows that come from elsewhere. Here the few rows are added in place.
    """
    first, every = FirstRows.apply(rows_SI, number)
    return first, every


class FirstRows(torch.autograd.Function):
    """See `first_rows`."""

    @staticmethod
    def forward(ctx: Any, rows_SI: Tensor, number: int) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.number, ctx.shape = number, rows_SI.shape
        return rows_SI[:number], rows_SI.view_as(rows_SI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NI: Tensor | None, grad_SI: Tensor | None) -> tuple[Tensor | None, None]:
        if grad_NI is None:
            return grad_SI, None
        if grad_SI is None:
            grad_SI = grad_NI.new_zeros(ctx.shape)
        grad_SI[: ctx.number] += grad_NI
        return grad_SI, None
