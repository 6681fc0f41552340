"""From input rows of sampled nodes to the representations of the seeds.

Shape legend: S sources of the outermost block, N seeds, E embedding size, R representation size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_gat.config.model_sections import ModelConfig
from dist_gat.nn.attend import first_rows
from dist_gat.nn.attention import AttentionLayer
from dist_gat.nn.edge_terms import PLAIN_KINDS, EdgeKinds, columns_read
from dist_gat.sampling.block import Block


class Encoded(NamedTuple):
    """Representations of the seeds, and the attention weights of each layer (detached, for monitoring)."""

    rows_NR: Tensor
    alphas: list[Tensor]


def representation_size(model: ModelConfig, num_layers: int) -> int:
    """R: of the combination of all depths."""
    return model.embedding_size * (num_layers + 1 if model.combination == "concat" else 1)


class Encoder(nn.Module):
    """Attention layers over the blocks of a sample, and the combination of their depths.

    x_0 = input rows, x_l = layer_l(x_{l-1}, block_l); a seed's representation is x_L (last), the mean of
    x_0 ... x_L (mean, as in LightGCN) or all of them side by side (concat).

    Args:
        model: sizes, attention and combination.
        kinds: the edge types of the graph.
        num_layers: L, one per fan-out; with L = 0 a representation is the input row, matrix factorisation.
    """

    def __init__(self, model: ModelConfig, num_layers: int, kinds: EdgeKinds = PLAIN_KINDS) -> None:
        super().__init__()
        size = model.embedding_size
        self.combination = model.combination
        self.representation_size = representation_size(model, num_layers)
        self.layers = nn.ModuleList(
            AttentionLayer(model, size, size, kinds, kinds.silent[layer] if kinds.silent else ())
            for layer in range(num_layers)
        )
        # what the layers read of an edge
        self.edge_columns = columns_read(model, self.needs_degree, kinds) if num_layers else ()

    @property
    def projects_sources(self) -> bool:
        """Whether some layer projects every row that it reads."""
        return any(isinstance(layer, AttentionLayer) and layer.scoring.projects_sources for layer in self.layers)

    @property
    def needs_degree(self) -> bool:
        """Whether some layer reads in-degrees."""
        return any(isinstance(layer, AttentionLayer) and layer.scoring.needs_degree for layer in self.layers)

    def forward(self, rows_SE: Tensor, blocks: Sequence[Block]) -> Encoded:
        """Representations of the destinations of `blocks[-1]`, or of all rows where there are no layers.

        `blocks[0]` is the outermost hop, its sources are `rows_SE`. The sources of each later block are the
        destinations of the one before it, so that the seeds are the first N rows at every depth.
        """
        assert len(blocks) == len(self.layers), f"{len(self.layers)} layers but {len(blocks)} blocks"
        num_seeds = blocks[-1].num_dst if blocks else len(rows_SE)
        of_seeds, alphas = [], []
        for layer, block in zip(self.layers, blocks, strict=True):
            own_NE, rows_SE = first_rows(rows_SE, num_seeds)
            of_seeds.append(own_NE)
            attended = layer(rows_SE, block)
            rows_SE = attended.rows_DO
            alphas.append(attended.alpha_DFH.detach())
        return Encoded(self.combine([*of_seeds, rows_SE]), alphas)

    def combine(self, depths: Sequence[Tensor]) -> Tensor:
        """Representations [N, R] from the rows [N, E] at depths 0 (input) to L."""
        if self.combination == "last":
            return depths[-1]
        if self.combination == "concat":
            return torch.cat(list(depths), dim=1)
        return torch.stack(list(depths)).mean(dim=0)


class RunningCombination:
    """`Encoder.combine` for depths that arrive one by one in one tensor, which is overwritten in between.

    Without gradients. `rows` is the combination once all depths were added.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.combination, self.num_depths, self.num_added = encoder.combination, len(encoder.layers) + 1, 0
        self.rows: Tensor | None = None

    def add(self, rows_NE: Tensor) -> None:
        """Add the next depth, from 0 (input) to L."""
        size = rows_NE.shape[1]
        if self.combination == "last":
            self.rows = rows_NE
        elif self.combination == "concat":
            if self.rows is None:
                self.rows = rows_NE.new_empty(len(rows_NE), size * self.num_depths)
            self.rows[:, size * self.num_added : size * (self.num_added + 1)] = rows_NE
        elif self.rows is None:
            self.rows = rows_NE.clone()
        else:
            self.rows += rows_NE
        self.num_added += 1
        if self.combination == "mean" and self.num_added == self.num_depths:
            self.rows /= self.num_depths
