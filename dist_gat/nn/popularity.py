"""`Popularity`: an item's own score, by its degree.

b_i = β log(1 + d_i) with the training degree d of the item and one learned β. In a softmax over items β = 1 is the base
rate of training interactions, from which user and item then depart; a bias of every item (Koren, Bell and Volinsky,
IEEE Computer 2009) is the same with a parameter per item. Without either, the representations must express it, at the
expense of the rest.

Shape legend: N nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Popularity(nn.Module):
    """b of nodes [N], from their degrees in the training graph, int64 [N]. β starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))

    def forward(self, degree_N: Tensor) -> Tensor:
        return self.slope * degree_N.to(self.slope.dtype).log1p()

    def monitored(self) -> dict[str, float]:
        return {"slope": float(self.slope.detach())}
