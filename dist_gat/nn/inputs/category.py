"""`CategoryInput`: one category of each node.

Shape legend: n nodes, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.nn.inputs.input_encoder import EncodedColumn, Factors


class CategoryInput(nn.Module):
    """A learned row for each category; see `category_rows`."""

    def __init__(self, num_categories: int, size: int, init_std: float) -> None:
        super().__init__()
        self.weight = category_rows(num_categories, size, init_std)

    def forward(self, columns_n1: Tensor) -> EncodedColumn:
        code_n = codes_of(columns_n1)[:, 0]
        return EncodedColumn(functional.embedding(code_n + 1, self.weight), code_n >= 0)

    def factors(self, columns_n1: Tensor) -> Factors:
        code_n1 = codes_of(columns_n1).long() + 1
        return Factors(torch.ones_like(code_n1, dtype=self.weight.dtype), code_n1, len(self.weight))


def category_rows(num_categories: int, size: int, init_std: float) -> nn.Parameter:
    """[1 + categories, E]: first the row of nodes without any, 0 at first; then one a code, from N(0, init_std²)."""
    rows = init_std * torch.randn(1 + num_categories, size)
    rows[0] = 0
    return nn.Parameter(rows)


def codes_of(columns: Tensor) -> Tensor:
    """int32: the codes whose bits stand in float32 columns; -1 where there is none."""
    return columns.view(torch.int32)
