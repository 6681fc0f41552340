"""`Batch`: one rank's share of one global step, ready for the model.

Shape legend: B seeds of this rank, N shared negatives of this rank, K negatives of each seed, S sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dist_gat.sampling.block import Block, to_device


@dataclass(frozen=True)
class Batch:
    """Positions (`*_at_*`) count among the seed nodes, which are the first rows of every block's sources.

    num_global_seeds: seed edges of the step over all ranks; the loss is a mean over them.
    nodes_S:          int64 node IDs of the outermost sources, whose embedding rows the model needs.
    blocks:           one a layer, the outermost hop first.
    user_at_B, item_at_B, shared_at_N, own_at_BK: int64 positions of users, positives and negatives.
    item_B, shared_N, own_BK: int64 node IDs of the same items, to mask accidental hits.
    log_count_*:      float32 log of how often a step is expected to draw the item as a negative.
    features:         node type → (positions among S, float32 rows) of the nodes that have input features.
    num_edges:        messages that the layers pass for this batch.
    seconds:          what the background spent on this batch: sample, exchange.
    """

    epoch: int
    step: int
    num_global_seeds: int
    num_edges: int
    nodes_S: Tensor
    blocks: list[Block]
    user_at_B: Tensor
    item_at_B: Tensor
    shared_at_N: Tensor
    own_at_BK: Tensor
    item_B: Tensor
    shared_N: Tensor
    own_BK: Tensor
    log_count_B: Tensor
    log_count_N: Tensor
    log_count_BK: Tensor
    features: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device; DGL's DataLoader calls this."""
        moved = to_device(self, device, non_blocking)
        features = {
            kind: (at.to(device, non_blocking=non_blocking), rows.to(device, non_blocking=non_blocking))
            for kind, (at, rows) in self.features.items()
        }
        object.__setattr__(moved, "features", features)
        return moved
