"""`CategoryInput`: one category of each node.

Shape legend: n nodes, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.nn.inputs.input_encoder import EncodedColumn


class CategoryInput(nn.Module):
    """A learned row for each category, from N(0, init_std²), and one for nodes without."""

    def __init__(self, num_categories: int, size: int, init_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(init_std * torch.randn(max(num_categories, 1), size))
        self.missing = nn.Parameter(torch.zeros(size))

    def forward(self, columns_n1: Tensor) -> EncodedColumn:
        code_n = codes_of(columns_n1)[:, 0]
        present_n = code_n >= 0
        rows_nE = functional.embedding(code_n.clamp(min=0), self.weight)
        return EncodedColumn(torch.where(present_n[:, None], rows_nE, self.missing), present_n)


def codes_of(columns: Tensor) -> Tensor:
    """int64: the codes whose bits stand in float32 columns; -1 where there is none."""
    return columns.view(torch.int32).long()
