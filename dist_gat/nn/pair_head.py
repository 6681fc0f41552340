"""`PairHead`: from the representations of two nodes to a value of their pair.

Shape legend: B pairs, N nodes, R representation size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PairHead(nn.Module):
    """value(u, i) = score(u, i) + a · z_u + b · z_i + c, with the decoder's score: user, item and global bias.

    The biases are linear in the representations, so a node whose ID training never saw has one too. They start at 0.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.source_R = nn.Parameter(torch.zeros(size))
        self.target_R = nn.Parameter(torch.zeros(size))
        self.constant = nn.Parameter(torch.zeros(()))

    def forward(self, score_B: Tensor, source_BR: Tensor, target_BR: Tensor) -> Tensor:
        """[B]"""
        return score_B + source_BR @ self.source_R + target_BR @ self.target_R + self.constant

    def biases(self, rows_NR: Tensor) -> tuple[Tensor, Tensor]:
        """What nodes add to a value as its source and as its target: [N] each."""
        return rows_NR @ self.source_R, rows_NR @ self.target_R
