"""`NumericInput`: numeric columns of a node type.

Shape legend: n nodes, F columns, E embedding size.
"""

from __future__ import annotations

from torch import Tensor, nn


class NumericInput(nn.Module):
    """W f, without a bias: a node whose columns are 0 is as if it had none."""

    def __init__(self, num_columns: int, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(num_columns, size, bias=False)

    def forward(self, columns_nF: Tensor) -> Tensor:
        """[n, E]"""
        return self.project(columns_nF)
