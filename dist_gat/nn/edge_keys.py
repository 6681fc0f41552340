"""`EdgeKeys`: what an edge carries, as a learned vector that is added to the neighbour's row in the logit alone.

A scoring whose logit is q^T l_i, with the query q of the destination, has q^T (l_i + v_ui) with them: v_ui is the sum
of the vectors of the edge's type and of its category. They start at 0. As q^T v is computed for each vector and not
for each edge, this costs nothing of the size [D, F, I].

Shape legend: D destinations, F fan-out, H heads, I row size, Q queries (D, or 1 that all destinations share),
V vectors: of the edge types and the categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dist_gat.nn.edge_terms import EdgeKinds
from dist_gat.sampling.block import Block


class EdgeKeys(nn.Module):
    """keys: which, of `relation` and `category`."""

    def __init__(self, keys: Sequence[str], size: int, kinds: EdgeKinds) -> None:
        super().__init__()
        num_kinds, num_categories = len(kinds.slot), sum(kinds.num_categories)
        self.keys = tuple(keys)
        self.vector_VI = nn.Parameter(torch.zeros(num_kinds + num_categories, size))
        self.first_category: Tensor
        starts = num_kinds + torch.tensor((0, *kinds.num_categories[:-1])).cumsum(0)
        self.register_buffer("first_category", starts, persistent=False)
        self.has_category: Tensor
        self.register_buffer("has_category", torch.tensor(kinds.num_categories) > 0, persistent=False)

    def forward(self, query_QHI: Tensor, block: Block) -> Tensor:
        """q^T v of every edge, [D, F, H]."""
        number_QVH = torch.einsum("qhi,vi->qvh", query_QHI, self.vector_VI.to(query_QHI.dtype))
        number_DVH = number_QVH.expand(block.num_dst, -1, -1)
        kind_DF = block.kind_DF()
        found = []
        if "relation" in self.keys:
            found.append(_at(number_DVH, kind_DF))
        if "category" in self.keys:
            has_DF = self.has_category[kind_DF]
            at_DF = torch.where(has_DF, self.first_category[kind_DF] + block.edges["category"], 0)
            found.append(_at(number_DVH, at_DF) * has_DF[:, :, None])
        return torch.stack(found).sum(dim=0)


def _at(number_DVH: Tensor, at_DF: Tensor) -> Tensor:
    """[D, F, H]: of each edge, the number of its vector."""
    return number_DVH.gather(1, at_DF[:, :, None].expand(-1, -1, number_DVH.shape[2]))
