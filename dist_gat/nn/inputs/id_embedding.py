"""`EmbeddingShard`: this rank's rows of the node-ID embedding table.

Rows live with their owners and never move: a lookup, planned with the batch, brings copies of them, and their
gradient goes home the same way, where a sparse optimiser applies it.

Shape legend: O rows that this rank owns, S rows asked for, E embedding size.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dist_gat.base.random import Purpose, make_key, normal_rows
from dist_gat.exchange.channel import Channel
from dist_gat.sampling.row_lookup import Lookup, lookup_rows


class EmbeddingShard(nn.Module):
    """weight: [O, E], row j for node first_node + j, from N(0, init_std²) as a function of (seed, node) alone."""

    def __init__(
        self,
        node_starts: np.ndarray,
        size: int,
        channel: Channel,
        seed: int,
        init_std: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """node_starts: int64 [W + 1], rank r owns node IDs node_starts[r] to node_starts[r + 1] - 1."""
        super().__init__()
        self.channel = channel
        self.node_starts = torch.from_numpy(node_starts).to(channel.device)
        self.first_node = int(node_starts[channel.rank])
        num_rows = int(node_starts[channel.rank + 1]) - self.first_node
        rows = normal_rows(make_key(seed, Purpose.EMBEDDING), self.first_node, num_rows, size, init_std)
        self.weight = nn.Parameter(torch.from_numpy(rows).to(channel.device, dtype))

    def forward(self, nodes_S: Tensor, lookup: Lookup | None = None) -> Tensor:
        """The rows of `nodes_S`, [S, E]; differentiable. Collective where there are other ranks.

        lookup: the plan for these nodes, None where there is one rank.
        """
        if lookup is None:
            assert self.channel.group is None, "the rows of other ranks need a lookup"
            return F.embedding(nodes_S, self.weight, sparse=True)
        return lookup_rows(self.weight, lookup, self.channel)

    def owner_of(self, nodes_S: Tensor) -> Tensor:
        """int64 [S]: the rank that owns each node."""
        return torch.searchsorted(self.node_starts, nodes_S, right=True) - 1
