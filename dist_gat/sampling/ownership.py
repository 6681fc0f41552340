"""`Ownership`: which rank owns which nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.graph.ranges import NodeRanges, parts_of_ranks


@dataclass(frozen=True)
class Ownership:
    """starts: int64 [W + 1], rank r owns node IDs starts[r] to starts[r + 1] - 1. rank: this one."""

    starts: np.ndarray
    rank: int

    @property
    def first_node(self) -> int:
        return int(self.starts[self.rank])

    @property
    def num_nodes(self) -> int:
        return int(self.starts[self.rank + 1]) - self.first_node

    @property
    def own_nodes(self) -> np.ndarray:
        """int64 [O]: the nodes of this rank, ascending."""
        return np.arange(self.first_node, self.first_node + self.num_nodes)

    def owner_of(self, nodes_S: Tensor) -> Tensor:
        """int64 [S]: the rank that owns each node, on the device of the nodes."""
        starts = torch.from_numpy(self.starts).to(nodes_S.device)
        return torch.searchsorted(starts, nodes_S, right=True) - 1


def share_nodes(ranges: NodeRanges, world_size: int, rank: int) -> Ownership:
    """A rank's share of the nodes: those of its parts."""
    return Ownership(ranges.starts[parts_of_ranks(ranges.num_parts, world_size)], rank)
