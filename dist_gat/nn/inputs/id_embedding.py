"""`EmbeddingShard`: the `InputEncoder` of node IDs, this rank's rows of the embedding table.

Rows live with their owners and never move: a row lookup, planned with the batch, brings copies of them, and the
gradient of the copies returns the same way to the owners, where a sparse optimiser applies it.

Shape legend: O rows that this rank owns, S rows asked for, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dist_gat.base.random import Purpose, make_key, normal_rows
from dist_gat.exchange.channel import Channel
from dist_gat.sampling.ownership import Ownership
from dist_gat.sampling.row_lookup import RowLookup, lookup_rows, take_rows


class EmbeddingShard(nn.Module):
    """weight: [O, E], one row a node of this rank, from N(0, init_std²) as a function of (seed, node) alone."""

    def __init__(
        self,
        ownership: Ownership,
        size: int,
        channel: Channel,
        seed: int,
        init_std: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.channel = channel
        key = make_key(seed, Purpose.EMBEDDING)
        rows = normal_rows(key, ownership.first_node, ownership.num_nodes, size, init_std)
        self.weight = nn.Parameter(torch.from_numpy(rows).to(channel.device, dtype))

    def forward(self, nodes_S: Tensor, lookup: RowLookup | None = None) -> Tensor:
        """The rows of `nodes_S`, [S, E]; differentiable. Collective where there are other ranks.

        lookup: the plan for these nodes, None where there is one rank.
        """
        if lookup is None:
            assert self.channel.group is None, "the rows of other ranks need a lookup"
            return take_rows(self.weight, nodes_S)
        return lookup_rows(self.weight, lookup, self.channel)
