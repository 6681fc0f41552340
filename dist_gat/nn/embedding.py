"""`EmbeddingShard`: this rank's rows of the node-ID embedding table.

Rows live with their owners and never move: a lookup asks the owners for rows, and the gradient of those
rows goes home through the same exchange, where a sparse optimiser applies it.

Shape legend: O rows that this rank owns, S rows asked for, E embedding size.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import exchange, exchange_back, route_to
from dist_gat.random import Purpose, make_key, normal_rows


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

    def forward(self, nodes_S: Tensor) -> Tensor:
        """The rows of `nodes_S`, [S, E]; differentiable. Collective, even with S = 0."""
        if self.channel.group is None:
            return F.embedding(nodes_S, self.weight, sparse=True)
        route = route_to(self.owner_of(nodes_S), self.channel)
        asked = exchange(nodes_S, route)
        return exchange_back(F.embedding(asked - self.first_node, self.weight, sparse=True), route)

    def owner_of(self, nodes_S: Tensor) -> Tensor:
        """int64 [S]: the rank that owns each node."""
        return torch.searchsorted(self.node_starts, nodes_S, right=True) - 1
