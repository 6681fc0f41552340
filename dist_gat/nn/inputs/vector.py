"""`VectorInput`: a vector of each node, such as what a pre-trained encoder makes of its picture or text.

Shape legend: n nodes, D length of the vectors, E embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dist_gat.nn.inputs.input_encoder import EncodedColumn, Factors


class VectorInput(nn.Module):
    """W v / D, without a bias; a learned row where the vector is missing.

    With W from N(0, D init_std²) the rows of standardised vectors begin as large as those of IDs. Divided by D, they
    also move as far in a step of Adam: undivided, a step moves all D weights, and drowns what IDs have learned.
    """

    def __init__(self, length: int, size: int, init_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(init_std * math.sqrt(length) * torch.randn(size, length))
        self.missing = nn.Parameter(torch.zeros(size))

    def forward(self, columns_nD: Tensor) -> EncodedColumn:
        present_n = ~columns_nD[:, 0].isnan()
        rows_nE = self.values(columns_nD) @ self.weight.T
        return EncodedColumn(torch.where(present_n[:, None], rows_nE, self.missing.to(rows_nE.dtype)), present_n)

    def factors(self, columns_nD: Tensor) -> Factors:
        """Of W, then of the row of missing ones."""
        missing_n1, values_nD = columns_nD[:, :1].isnan(), self.values(columns_nD)
        value_nG = torch.cat([values_nD.masked_fill(missing_n1, 0.0), missing_n1.to(values_nD.dtype)], dim=1)
        return Factors(value_nG, None, value_nG.shape[1])

    def values(self, columns_nD: Tensor) -> Tensor:
        """[n, D]: v / D"""
        return columns_nD.nan_to_num().to(self.missing.dtype) / columns_nD.shape[1]
