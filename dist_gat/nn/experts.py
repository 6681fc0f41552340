"""`Experts`: layers that several tasks share, each by its own mixture.

Shape legend: N nodes, R representation size, K experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class Experts(nn.Module):
    """z' = Σ_k softmax(gate)_k (z + W'_k gelu(W_k z)), the mixture of experts of one gate a task (Ma et al., KDD 2018).

    Each expert starts as the identity, so that training starts where one shared representation would.
    """

    def __init__(self, size: int, num_experts: int) -> None:
        super().__init__()
        self.inner_KRR = nn.Parameter(torch.randn(num_experts, size, size) / size**0.5)
        self.outer_KRR = nn.Parameter(torch.zeros(num_experts, size, size))

    def forward(self, rows_NR: Tensor, gate_NK: Tensor) -> Tensor:
        """[N, R]"""
        hidden = gelu(torch.einsum("nr,krs->nks", rows_NR, self.inner_KRR))
        return rows_NR + torch.einsum("nk,nks,kst->nt", gate_NK.softmax(dim=1), hidden, self.outer_KRR)
