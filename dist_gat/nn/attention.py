"""One layer of message passing with attention over sampled neighbours.

Shape legend: S sources, D destinations, F fan-out, H heads, I input size,
O output size (of all heads together).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_gat.config.sections import AttentionConfig
from dist_gat.nn.attend import attend, own_and_all_rows
from dist_gat.nn.edge_terms import PLAIN_KINDS, EdgeKinds
from dist_gat.nn.scoring import build_scoring
from dist_gat.sampling.block import Block


class Attended(NamedTuple):
    """What a layer returns: the destinations' new rows, and how they attended to their neighbours (detached)."""

    rows_DO: Tensor
    alpha_DFH: Tensor


def attention_entropy(alpha_DFH: Tensor, block: Block) -> Tensor:
    """How evenly destinations attend: 1 is uniform, 0 is all weight on one neighbour.

    Mean of -sum_i p_i log p_i / log |N(u)| over heads and the destinations with two neighbours or more, where p
    is alpha without negative weights and scaled to the sum 1. A scalar; 0 where there is no such destination.
    """
    alpha_DFH = alpha_DFH[block.count_D >= 2].clamp(min=0.0)
    count_D = block.count_D[block.count_D >= 2]
    share_DFH = alpha_DFH / alpha_DFH.sum(dim=1, keepdim=True)
    entropy_DH = torch.special.entr(share_DFH).sum(dim=1) / count_D[:, None].log()
    return entropy_DH.sum() / max(entropy_DH.numel(), 1)


def attention_shares(alpha_DFH: Tensor, block: Block, kinds: EdgeKinds) -> dict[str, float]:
    """The share of all attention that goes along each edge type, by its name; nothing where a layer reads no types."""
    if "kind" not in block.edges:
        return {}
    kind_E = block.edges["kind"].flatten().to(alpha_DFH.device)
    weight_E = alpha_DFH.detach().abs().mean(dim=2).flatten()
    of_kind = torch.zeros(len(kinds.names), dtype=weight_E.dtype, device=weight_E.device)
    of_kind.index_add_(0, kind_E, weight_E)
    whole = max(float(of_kind.sum()), torch.finfo(torch.float32).tiny)
    return {name: float(share) / whole for name, share in zip(kinds.names, of_kind, strict=True)}


class AttentionLayer(nn.Module):
    """y_u = h_u + T(sum_{i in N(u)} alpha_ui l_i) with alpha and T of the scoring; h_u if residual.

    h_u is the destination's row, l_i a neighbour's, both from `rows_SI`. A destination without neighbours has
    the aggregate 0. See `dist_gat.nn.scoring` for the equations of alpha and T.

    Args:
        config: scoring, heads, normalization, transform and residual.
        in_size: I. `dot` without transform, `uniform`, `degree` and the residual need I == O.
        out_size: O; additive scorings divide it among their heads.
        kinds: the edge types of the graph.
    """

    def __init__(
        self, config: AttentionConfig, in_size: int, out_size: int, kinds: EdgeKinds = PLAIN_KINDS
    ) -> None:  # fmt: skip
        super().__init__()
        assert not config.residual or in_size == out_size, "a residual needs rows of equal size"
        self.residual = config.residual
        self.scoring = build_scoring(config, in_size, out_size, kinds)

    def forward(self, rows_SI: Tensor, block: Block) -> Attended:
        own_DI, rows_SI = own_and_all_rows(rows_SI, block)
        sums, alpha_DFH = attend(rows_SI, block, self.scoring.weighting(rows_SI, own_DI, block))
        rows_DO = self.scoring.output(sums, block)
        if self.residual:
            rows_DO = rows_DO + own_DI
        return Attended(rows_DO, alpha_DFH)
