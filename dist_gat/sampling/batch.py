"""`Batch`: one rank's share of one global step, ready for the model.

Shape legend: B seeds of this rank, N shared negatives of this rank, K negatives of each seed, S sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dist_gat.sampling.block import Block, to_device
from dist_gat.sampling.row_lookup import Lookup


@dataclass(frozen=True)
class Candidates:
    """The C different items that all seeds of all ranks share as negatives. Each row is offered by one rank.

    offered_at_M:   int64 positions among this rank's seed nodes of the M rows that it offers.
    offered_counts: how many rows each rank offers; C in all.
    item_C:         int64 node IDs in the order of the offered rows, to mask accidental hits.
    num_drawn_C:    float32, how often the step drew the item.
    log_count_C:    float32 log of how often a step is expected to draw the item as a negative.
    """

    offered_at_M: Tensor
    offered_counts: tuple[int, ...]
    item_C: Tensor
    num_drawn_C: Tensor
    log_count_C: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Candidates:
        return to_device(self, device, non_blocking)


@dataclass(frozen=True)
class Batch:
    """Positions (`*_at_*`) count among the seed nodes, which are the first rows of every block's sources.

    num_global_seeds: seed edges of the step over all ranks; the loss is a mean over them.
    nodes_S:          int64 node IDs of the outermost sources, whose embedding rows the model needs.
    blocks:           one a layer, the outermost hop first.
    user_at_B, item_at_B, shared_at_N, own_at_BK: int64 positions of users, positives and negatives.
    item_B, own_BK:   int64 node IDs of positives and of the seeds' own negatives, to mask accidental hits.
    log_count_BK:     float32 log of how often a step is expected to draw the item as a negative.
    candidates:       the negatives that the seeds of all ranks share.
    degree_N:         int64 in-degrees of the seed nodes, or None where nothing asks for degrees.
    lookup:           the way of the rows of nodes_S from their owners, None where there is one rank.
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
    own_BK: Tensor
    log_count_BK: Tensor
    candidates: Candidates
    degree_N: Tensor | None = None
    lookup: Lookup | None = None
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
