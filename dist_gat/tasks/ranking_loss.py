"""Losses of a positive score against sampled negatives, one value per seed.

Shape legend: B seeds, N negatives. There is no mean here, because `ranking.loss_terms` divides by the number of seeds
of all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

GROUP_NUMBERS = 1 << 16


def bpr_loss(pos_B: Tensor, neg_BN: Tensor, weight_BN: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009): weighted mean over negatives of -log sigmoid(pos - neg).

    weight_BN: how often the negative was drawn, 0 where it must not count. 0 for a seed without weight. Shape [B].
    """
    loss_BN = functional.softplus(neg_BN - pos_B[:, None]).masked_fill(weight_BN == 0, 0.0)
    return (loss_BN * weight_BN).sum(dim=1) / weight_BN.sum(dim=1).clamp(min=1)


def sampled_softmax_loss(
    pos_B: Tensor, neg_BN: Tensor, valid_BN: Tensor, log_weight_BN: Tensor | None = None
) -> Tensor:
    """-log(e^pos / (e^pos + sum_j w_j e^neg_j)) over valid negatives j.

    With w_j = how often item j was drawn / how often it was expected to be, the sum is an unbiased estimate of the
    sum over all items (Bengio & Senecal 2008).

    Args:
        valid_BN: False where a negative must not count.
        log_weight_BN: log w_j, of any shape that broadcasts to [B, N], or None for w = 1.

    Returns:
        The loss of each seed [B]; 0 for one without valid negatives.
    """
    return _SampledSoftmax.apply(pos_B, neg_BN, valid_BN, log_weight_BN)


class _SampledSoftmax(torch.autograd.Function):
    """`sampled_softmax_loss` in one pass over the negatives, and its gradient in another.

    Tensor operations would take a dozen passes over [B, N], which is the largest array of a training step.
    """

    @staticmethod
    def forward(ctx: Any, pos_B: Tensor, neg_BN: Tensor, valid_BN: Tensor, log_weight_BN: Tensor | None) -> Tensor:
        share_BN, loss_B, rest_B = torch.empty_like(neg_BN), torch.empty_like(pos_B), torch.empty_like(pos_B)
        for rows in _groups_of_rows(neg_BN):
            share_bN, pos_b = share_BN[rows], pos_B[rows]
            if log_weight_BN is None:
                share_bN.copy_(neg_BN[rows])
            else:
                torch.add(neg_BN[rows], log_weight_BN.expand_as(neg_BN)[rows], out=share_bN)
            share_bN.masked_fill_(~valid_BN[rows], -torch.inf)
            top_b = torch.maximum(share_bN.amax(dim=1), pos_b) if neg_BN.shape[1] else pos_b
            rest_b = share_bN.sub_(top_b[:, None]).exp_().sum(dim=1)
            total_b = rest_b + (pos_b - top_b).exp()
            share_bN.div_(total_b[:, None])
            loss_B[rows], rest_B[rows] = total_b.log() + (top_b - pos_b), rest_b / total_b
        ctx.save_for_backward(share_BN, rest_B)
        return loss_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor | None, ...]:
        share_BN, rest_B = ctx.saved_tensors
        return -grad_B * rest_B, grad_B[:, None] * share_BN, None, None


def _groups_of_rows(tensor_BN: Tensor) -> list[slice]:
    """Slices of rows that stay in a core's second-level cache; on a GPU one slice of all rows."""
    num_rows, row_size = tensor_BN.shape
    step = max(GROUP_NUMBERS // max(row_size, 1), 1) if tensor_BN.device.type == "cpu" else max(num_rows, 1)
    return [slice(first, first + step) for first in range(0, num_rows, step)]
