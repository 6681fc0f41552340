"""`Batch`: one rank's share of one global step, ready for the model.

Shape legend: N seed nodes of this rank, S sources, U
distinct nodes of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
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
    nodes_U:          int64 distinct node IDs of the outermost sources, whose embedding rows the model needs.
    place_S:          int64 position of each source among `nodes_U`; None where sources are these nodes, in order.
    blocks:           one a layer, the outermost hop first.
    degree_N:         int64 in-degrees of the seed nodes, or None where nothing asks for degrees.
    lookup:           how the rows of nodes_U come from their owners, None where there is one rank.
    features:         node type → (positions among U, float32 rows) of the nodes that have columns.
    hidden:           node type → (positions among U, float32 rows) of seed nodes whose columns the step hides; among
                      `features` they are missing.
    has_id_U:         bool: whose ID row counts, see `ids_present`; None: of all.
    seconds:          what the background spent on this batch: sample, exchange.
    """

    epoch: int
    step: int
    num_global_seeds: int
    num_edges: int
    seeds: Seeds
    nodes_U: Tensor
    blocks: list[Block]
    place_S: Tensor | None = None
    degree_N: Tensor | None = None
    lookup: RowLookup | None = None
    features: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    hidden: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    has_id_U: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def seeds_among(self, at: Tensor, num_seed_nodes: int) -> tuple[Tensor, Tensor]:
        """int64 [n] each: the seed nodes, by their number below `num_seed_nodes`, of nodes at some positions among U,
        and for each of them the place of its node among these positions."""
        place_U = at.new_full((len(self.nodes_U),), -1)
        place_U[at] = torch.arange(len(at), device=at.device)
        place_N = (place_U if self.place_S is None else place_U[self.place_S])[:num_seed_nodes]
        (seeds,) = (place_N >= 0).nonzero(as_tuple=True)
        return seeds, place_N[seeds]

    @property
    def nodes_S(self) -> Tensor:
        """int64: the node of each source."""
        return self.nodes_U if self.place_S is None else self.nodes_U[self.place_S]
