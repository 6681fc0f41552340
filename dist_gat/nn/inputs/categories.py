"""`CategoriesInput`: a list of categories of each node, such as genres or tags.

Shape legend: n nodes, L longest list, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.nn.inputs.category import category_rows, codes_of
from dist_gat.nn.inputs.input_encoder import EncodedColumn


class CategoriesInput(nn.Module):
    """The mean of the learned rows of a node's categories; see `category_rows`."""

    def __init__(self, num_categories: int, size: int, init_std: float) -> None:
        super().__init__()
        self.weight = category_rows(num_categories, size, init_std)

    def forward(self, columns_nL: Tensor) -> EncodedColumn:
        code_nL = codes_of(columns_nL)
        present_n = code_nL[:, 0] >= 0
        is_read_nL = code_nL >= 0
        is_read_nL[:, 0] = True  # of an empty list the row of nodes without any
        count_n = is_read_nL.sum(dim=1, dtype=torch.int32)
        start_n = count_n.cumsum(0, dtype=torch.int32) - count_n
        # ragged, because torch's fast loop knows no padding
        rows_nE = functional.embedding_bag(code_nL[is_read_nL] + 1, self.weight, start_n, mode="mean")
        return EncodedColumn(rows_nE, present_n)
