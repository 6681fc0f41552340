"""How the row of a node's ID and those of its columns become one: a sum, a gated sum, or attention over them.

Shape legend: n nodes, C rows of a node (that of its ID first, then those of its columns), E embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dist_gat.nn.inputs.input_encoder import EncodedColumn


class SumFusion(nn.Module):
    """x = Σ_c r_c"""

    def forward(self, parts: Sequence[EncodedColumn]) -> Tensor:
        """[n, E] from the C encoded parts of n nodes; an ID row that is absent is 0."""
        total = parts[0].rows_nE + parts[1].rows_nE.to(parts[0].rows_nE.dtype)
        for part in parts[2:]:
            total += part.rows_nE
        return total


class GateFusion(nn.Module):
    """x = Σ_c 2 σ(w_c · r_c + b_c) r_c, which begins as a sum."""

    def __init__(self, num_parts: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_parts, size))
        self.bias = nn.Parameter(torch.zeros(num_parts))

    def forward(self, parts: Sequence[EncodedColumn]) -> Tensor:
        total = torch.zeros_like(parts[0].rows_nE)
        for part, weight_E, bias in zip(parts, self.weight, self.bias, strict=True):
            rows_nE = part.rows_nE.to(total.dtype)
            total = total + 2 * torch.sigmoid(rows_nE @ weight_E + bias)[:, None] * rows_nE
        return total


class AttentionFusion(nn.Module):
    """x = Σ_c α_c r_c, α = softmax over what the node has of q · r_c / √E + b_c, which begins as a mean.

    Columns that a node lacks don't take part; if it has nothing at all, all their learned rows do.
    """

    def __init__(self, num_parts: int, size: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(num_parts))

    def forward(self, parts: Sequence[EncodedColumn]) -> Tensor:
        dtype = parts[0].rows_nE.dtype
        rows_nCE = torch.stack([part.rows_nE.to(dtype) for part in parts], dim=1)
        present_nC = torch.stack([part.present_n for part in parts], dim=1)
        is_column_C = torch.arange(len(parts), device=present_nC.device) > 0
        present_nC = present_nC | (is_column_C & ~present_nC.any(dim=1, keepdim=True))
        logit_nC = rows_nCE @ self.query / math.sqrt(rows_nCE.shape[2]) + self.bias
        alpha_nC = logit_nC.masked_fill(~present_nC, -math.inf).softmax(dim=1)
        return (alpha_nC.to(dtype)[:, :, None] * rows_nCE).sum(dim=1)


def build_fusion(kind: Literal["sum", "gate", "attention"], num_parts: int, size: int) -> nn.Module:
    if kind == "sum":
        return SumFusion()
    return GateFusion(num_parts, size) if kind == "gate" else AttentionFusion(num_parts, size)
