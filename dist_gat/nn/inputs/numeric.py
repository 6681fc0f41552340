"""`NumericInput`: all numeric columns of a node type.

Shape legend: n nodes, F columns, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dist_gat.nn.inputs.input_encoder import EncodedColumn, Factors


class NumericInput(nn.Module):
    """W f + M m: f are the numbers, 0 where missing, and m is 1 there. There is no bias."""

    def __init__(self, num_columns: int, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(num_columns, size, bias=False)
        self.missing = nn.Parameter(torch.zeros(num_columns, size))

    def forward(self, columns_nF: Tensor) -> EncodedColumn:
        # both in one product, which writes the rows once
        weight_GE = torch.cat([self.project.weight.T, self.missing])
        return EncodedColumn(self.factors(columns_nF).value_nL @ weight_GE, ~columns_nF.isnan().all(dim=1))

    def factors(self, columns_nF: Tensor) -> Factors:
        """Of W, then of M."""
        known_nG = torch.cat([columns_nF.nan_to_num(), columns_nF.isnan().to(columns_nF.dtype)], dim=1)
        return Factors(known_nG.to(self.missing.dtype), None, known_nG.shape[1])
