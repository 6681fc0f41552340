"""Own scores: what a single node adds to its scores, as one more column beside its representation.

The column travels with the row to wherever a score is computed, so ranking stays an inner product.

Shape legend: N nodes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dist_gat.config.model_sections import DecoderConfig
from dist_gat.nn.popularity import Popularity


class OwnScores(nn.ModuleDict):
    """Terms by name, each from the in-degrees of nodes, int64 [N], to their own scores [N]."""

    def forward(self, degree_N: Tensor) -> Tensor:
        """[N]: the sum of all terms."""
        return torch.stack([term(degree_N) for term in self.values()]).sum(dim=0)

    def monitored(self) -> dict[str, float]:
        """What to show of the terms while they are trained."""
        terms: dict[str, Any] = dict(self.items())
        return {f"{name}_{key}": value for name, term in terms.items() for key, value in term.monitored().items()}


def build_own_scores(config: DecoderConfig) -> OwnScores:
    """The terms that a decoder asks for; there may be none."""
    return OwnScores({"popularity": Popularity()} if config.popularity else {})


def has_own_scores(config: DecoderConfig) -> bool:
    """Whether rows are a column wider than representations, for which the nodes' degrees are needed."""
    return config.popularity
