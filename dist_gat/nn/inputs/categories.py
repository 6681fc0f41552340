"""`CategoriesInput`: a list of categories of each node, such as genres or tags.

Shape legend: n nodes, L longest list, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.nn.inputs.category import category_rows, codes_of
from dist_gat.nn.inputs.input_encoder import EncodedColumn, Factors


class CategoriesInput(nn.Module):
    """The mean of the learned rows of a node's categories, or the sum by weights; see `category_rows`."""

    def __init__(self, num_categories: int, size: int, init_std: float, has_weights: bool = False) -> None:
        """has_weights: whether as many weights, float32, stand behind the codes."""
        super().__init__()
        self.weight, self.has_weights = category_rows(num_categories, size, init_std), has_weights

    def forward(self, columns: Tensor) -> EncodedColumn:
        """columns: [n, L], or with weights [n, 2 L]."""
        code_nL, is_read_nL, weight_nL = self.read(columns)
        count_n = is_read_nL.sum(dim=1, dtype=torch.int32)
        start_n = count_n.cumsum(0, dtype=torch.int32) - count_n
        # ragged, because torch's fast loop knows no padding
        codes, weights, mode = code_nL[is_read_nL] + 1, None, "mean"
        if weight_nL is not None:
            weights, mode = weight_nL[is_read_nL].to(self.weight.dtype), "sum"
        rows_nE = functional.embedding_bag(codes, self.weight, start_n, mode=mode, per_sample_weights=weights)
        return EncodedColumn(rows_nE, code_nL[:, 0] >= 0)

    def factors(self, columns: Tensor) -> Factors:
        code_nL, is_read_nL, weight_nL = self.read(columns)
        value_nL = is_read_nL.to(self.weight.dtype)
        value_nL = value_nL / value_nL.sum(dim=1, keepdim=True) if weight_nL is None else value_nL * weight_nL
        return Factors(value_nL, (code_nL.long() + 1).masked_fill(~is_read_nL, 0), len(self.weight))

    def read(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """[n, L] each: codes, which of them are read, and their weights, where they have some."""
        columns_nL = columns[:, : columns.shape[1] // 2] if self.has_weights else columns
        code_nL = codes_of(columns_nL)
        is_read_nL = code_nL >= 0
        is_read_nL[:, 0] = True  # of an empty list the row of nodes without any
        if not self.has_weights:
            return code_nL, is_read_nL, None
        weight_nL = columns[:, columns_nL.shape[1] :].clone()
        weight_nL[code_nL[:, 0] < 0, 0] = 1.0
        return code_nL, is_read_nL, weight_nL
