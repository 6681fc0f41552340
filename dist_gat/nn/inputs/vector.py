"""`VectorInput`: a vector of each node, such as what a pre-trained encoder makes of its picture or text.

Shape legend: n nodes, D length of the vectors, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dist_gat.nn.inputs.input_encoder import EncodedColumn


class VectorInput(nn.Module):
    """W v, without a bias; a learned row where the vector is missing."""

    def __init__(self, length: int, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(length, size, bias=False)
        self.missing = nn.Parameter(torch.zeros(size))

    def forward(self, columns_nD: Tensor) -> EncodedColumn:
        present_n = ~columns_nD[:, 0].isnan()
        rows_nE = self.project(columns_nD.nan_to_num().to(self.missing.dtype))
        return EncodedColumn(torch.where(present_n[:, None], rows_nE, self.missing.to(rows_nE.dtype)), present_n)
