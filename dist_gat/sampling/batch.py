"""`Batch`: one rank's share of one global step, ready for the model.

Shape legend: N seed nodes of this rank, S sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from dist_gat.sampling.block import Block
from dist_gat.sampling.movable import Movable
from dist_gat.sampling.row_lookup import RowLookup
from dist_gat.sampling.seeds import Seeds


@dataclass(frozen=True)
class Batch(Movable):
    """The seed nodes are the first rows of every block's sources.

    num_global_seeds: seeds of the step over all ranks; the loss is a mean over them.
    num_edges:        messages that the layers pass for this batch.
    seeds:            what the task is about: positions among the seed nodes, labels and whatever else its loss reads.
    nodes_S:          int64 node IDs of the outermost sources, whose embedding rows the model needs.
    blocks:           one a layer, the outermost hop first.
    degree_N:         int64 in-degrees of the seed nodes, or None where nothing asks for degrees.
    lookup:           how the rows of nodes_S come from their owners, None where there is one rank.
    features:         node type → (positions among S, float32 rows) of the nodes that have input features.
    seconds:          what the background spent on this batch: sample, exchange.
    """

    epoch: int
    step: int
    num_global_seeds: int
    num_edges: int
    seeds: Seeds
    nodes_S: Tensor
    blocks: list[Block]
    degree_N: Tensor | None = None
    lookup: RowLookup | None = None
    features: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
