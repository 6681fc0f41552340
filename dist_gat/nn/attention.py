"""One layer of message passing with attention over sampled neighbours.

Shape legend: S sources, D destinations, F fan-out, H heads, I input size,
O output size (of all heads together).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_gat.config.model_sections import AttentionConfig
from dist_gat.kernels.weighting import Rule, Weighting
from dist_gat.nn.attend import attend, own_and_all_rows, weights_of
from dist_gat.nn.by_relation import RelationGate, RelationProjection, SplitBlock, split_block
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
    the aggregate 0. See `dist_gat.nn.scoring` for the equations of alpha and T, and `dist_gat.nn.by_relation` for
    those of a softmax and a projection by relation.

    Args:
        config: scoring, heads, normalization, transform and residual.
        in_size: I. `dot` without transform, `uniform`, `degree` and the residual need I == O.
        out_size: O; additive scorings divide it among their heads.
        kinds: the edge types of the graph.
        silent: by edge type, whether its edges are left out, as where none are drawn; (): none is.
    """

    def __init__(
        self, config: AttentionConfig, in_size: int, out_size: int, kinds: EdgeKinds = PLAIN_KINDS,
        silent: Sequence[bool] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        assert not config.residual or in_size == out_size, "a residual needs rows of equal size"
        self.residual, self.kinds = config.residual, kinds
        self.scoring = build_scoring(config, in_size, out_size, kinds)
        self.gate = RelationGate(in_size, kinds) if config.softmax == "relation" else None
        self.projection = RelationProjection(out_size, kinds) if config.projection == "relation" else None
        self.silent: Tensor | None
        self.register_buffer("silent", torch.tensor(silent) if any(silent) else None, persistent=False)

    def forward(self, rows_SI: Tensor, block: Block) -> Attended:
        if self.silent is None:
            return self._attended(rows_SI, block)
        is_silent_DF = self.silent[block.kind_DF()]
        if not (is_silent_DF & block.mask_DF()).any():  # as in training, which draws none
            return self._attended(rows_SI, block)
        heard, order_DF = block.keeping(~is_silent_DF)
        rows_DO, alpha_DFH = self._attended(rows_SI, heard)
        # 0 for the edges that were left out
        at_DFH = order_DF[:, :, None].expand_as(alpha_DFH)
        return Attended(rows_DO, torch.zeros_like(alpha_DFH).scatter(1, at_DFH, alpha_DFH))

    def _attended(self, rows_SI: Tensor, block: Block) -> Attended:
        own_DI, rows_SI = own_and_all_rows(rows_SI, block)
        if self.gate is not None:
            rows_DO, alpha_DFH = self._of_gated(rows_SI, split_block(block, self.kinds))
        elif self.projection is not None:
            rows_DO, alpha_DFH = self._of_projected(rows_SI, own_DI, block)
        else:
            sums, alpha_DFH = attend(rows_SI, block, self.scoring.weighting(rows_SI, own_DI, block))
            rows_DO = self.scoring.output(sums, block)
        if self.residual:
            rows_DO = rows_DO + own_DI
        return Attended(rows_DO, alpha_DFH)

    def _of_gated(self, rows_SI: Tensor, split: SplitBlock) -> tuple[Tensor, Tensor]:
        """A softmax a relation."""
        assert self.gate is not None, "a gate"
        own_PI = split.block.own_rows(rows_SI)
        sums, alpha_PFH = attend(rows_SI, split.block, self.scoring.weighting(rows_SI, own_PI, split.block))
        rows_PO = self.scoring.output(sums, split.block)
        if self.projection is not None:
            rows_PO = self.projection(rows_PO, split.kind_P)
        gate_DK = self.gate(own_PI, split)
        rows_DO = torch.einsum("dk,dko->do", gate_DK, rows_PO.unflatten(0, gate_DK.shape))
        return rows_DO, split.joined(alpha_PFH * gate_DK.detach().reshape(-1, 1, 1))

    def _of_projected(self, rows_SI: Tensor, own_DI: Tensor, block: Block) -> tuple[Tensor, Tensor]:
        """One softmax, whose weights are then split, because the sums are projected apart."""
        assert self.projection is not None, "a projection"
        split, weighting = split_block(block, self.kinds), self.scoring.weighting(rows_SI, own_DI, block)
        alpha_DFH = weights_of(rows_SI, block, weighting)
        given = Weighting(
            Rule.GIVEN, split.split(alpha_DFH), mean=weighting.mean, value_XI=weighting.value_XI
        )  # fmt: skip
        sums, _ = attend(rows_SI, split.block, given)
        rows_PO = self.projection(sums if sums.ndim == 2 else sums.squeeze(1), split.kind_P)
        sums_DO = rows_PO.unflatten(0, (block.num_dst, split.num_slots)).sum(dim=1)
        # what a scoring does to the sum of a destination, it does to that over all its relations
        return self.scoring.output(sums_DO if sums.ndim == 2 else sums_DO[:, None], block), alpha_DFH.detach()
