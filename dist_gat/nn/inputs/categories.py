"""`CategoriesInput`: a list of categories of each node, such as genres or tags.

Shape legend: n nodes, L longest list, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.nn.inputs.category import codes_of
from dist_gat.nn.inputs.input_encoder import EncodedColumn


class CategoriesInput(nn.Module):
    """The mean of the learned rows of a node's categories, and a learned row for nodes without any."""

    def __init__(self, num_categories: int, size: int, init_std: float) -> None:
        super().__init__()
        # the last row stands behind the ends of lists, and is never read
        self.weight = nn.Parameter(init_std * torch.randn(num_categories + 1, size))
        self.missing = nn.Parameter(torch.zeros(size))

    def forward(self, columns_nL: Tensor) -> EncodedColumn:
        code_nL = codes_of(columns_nL)
        present_n = code_nL[:, 0] >= 0
        end = len(self.weight) - 1
        code_nL = torch.where(code_nL >= 0, code_nL, end)
        rows_nE = functional.embedding_bag(code_nL, self.weight, mode="mean", padding_idx=end)
        return EncodedColumn(torch.where(present_n[:, None], rows_nE, self.missing), present_n)
