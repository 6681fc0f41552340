"""What a layer does for each relation of a destination apart: a softmax with a gate, a projection after aggregation.

A destination u with edges along K relations is split into K destinations (u, k), each with the edges of one relation,
so that whatever weighs and sums the neighbours of a destination does it for a relation, in one pass over as many edges:

    one softmax over all relations:      y_u = T(sum_k W_k sum_{i in N_k(u)} alpha_ui l_i)
    one a relation, and a learned gate:  y_u = sum_k g_uk W_k T(sum_{i in N_k(u)} alpha_uki l_i)

alpha_u sums to 1 over all edges of u and alpha_uk over those along k; g_u is the softmax of a_k + h_u^T b_k over the
relations along which u has edges. W_k starts as the identity, a and b start at 0. Without a projection W_k is left out.

Shape legend: D destinations, F fan-out, H heads, K relations that lead to one type (at most), P = D * K, T edge types,
I input size, O output size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dist_gat.nn.edge_terms import EdgeKinds
from dist_gat.sampling.block import Block


@dataclass(frozen=True)
class SplitBlock:
    """block: P destinations, (u, k) at u * K + k. place_DF: where the edges of the whole block are among its P * F'
    edges. kind_P: their edge types, 0 where there is no edge. num_slots: K."""

    block: Block
    place_DF: Tensor
    kind_P: Tensor
    num_slots: int

    def split(self, values_DFH: Tensor) -> Tensor:
        """[P, F', H]: values of the edges of the whole block as the split one has them, 0 for padding."""
        fan_out, num_heads = self.block.neighbors_DF.shape[1], values_DFH.shape[2]
        # the last row takes what the whole block has for padding
        out = values_DFH.new_zeros(self.block.num_dst * fan_out + 1, num_heads)
        out = out.index_put((self.place_DF.flatten(),), values_DFH.flatten(0, 1))
        return out[:-1].view(self.block.num_dst, fan_out, num_heads)

    def joined(self, values_PFH: Tensor) -> Tensor:
        """[D, F, H]: the reverse of `split`."""
        flat = values_PFH.flatten(0, 1)
        flat = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
        return flat[self.place_DF]


def split_block(block: Block, kinds: EdgeKinds) -> SplitBlock:
    """The block with a destination for each relation of a destination; edges keep their order."""
    num_slots, mask_DF = max(kinds.slot) + 1, block.mask_DF()
    device, (num_dst, fan_out) = block.count_D.device, block.neighbors_DF.shape
    slot_DF = torch.tensor(kinds.slot, device=device)[block.kind_DF()].masked_fill(~mask_DF, num_slots)
    count_DK = nn.functional.one_hot(slot_DF, num_slots + 1).sum(dim=1)
    widest = max(int(count_DK[:, :num_slots].max()) if num_dst and fan_out else 0, 1)
    # among the edges of a destination along one relation
    order_DF = slot_DF.argsort(dim=1, stable=True)
    first_DK = count_DK.cumsum(dim=1) - count_DK
    rank_DF = torch.empty_like(order_DF).scatter_(
        1, order_DF, torch.arange(fan_out, device=device).expand_as(order_DF)
    ) - first_DK.gather(1, slot_DF)  # fmt: skip
    row_DF = torch.arange(num_dst, device=device)[:, None] * num_slots + slot_DF
    place_DF = torch.where(mask_DF, row_DF * widest + rank_DF, num_dst * num_slots * widest)

    def spread(values_DF: Tensor) -> Tensor:
        out = values_DF.new_zeros(num_dst * num_slots * widest + 1)
        out[place_DF.flatten()] = values_DF.flatten()
        return out[:-1].view(-1, widest)

    own_D = torch.arange(num_dst, device=device) if block.dst_at_D is None else block.dst_at_D
    split = replace(
        block,
        neighbors_DF=spread(block.neighbors_DF),
        count_D=count_DK[:, :num_slots].flatten(),
        edges={name: spread(values_DF) for name, values_DF in block.edges.items()},
        dst_at_D=own_D.repeat_interleave(num_slots),
    )
    return SplitBlock(split, place_DF, split.kind_DF()[:, 0], num_slots)


class RelationGate(nn.Module):
    """g_DK: how much a destination takes of each of its relations; their sum is 1."""

    def __init__(self, in_size: int, kinds: EdgeKinds) -> None:
        super().__init__()
        self.number_T = nn.Parameter(torch.zeros(len(kinds.slot)))
        self.query_TI = nn.Parameter(torch.zeros(len(kinds.slot), in_size))

    def forward(self, own_PI: Tensor, split: SplitBlock) -> Tensor:
        logit_P = self.number_T[split.kind_P] + (own_PI @ self.query_TI.T).gather(1, split.kind_P[:, None])[:, 0]
        # not -inf: a destination without any edge takes of all alike, which are 0
        lowest = torch.finfo(logit_P.dtype).min
        return (
            logit_P.masked_fill(split.block.count_D == 0, lowest)
            .view(len(split.place_DF), split.num_slots)
            .softmax(dim=1)
        )


class RelationProjection(nn.Module):
    """W_k z_uk for each edge type k. W [T, O, O] starts as the identity."""

    def __init__(self, size: int, kinds: EdgeKinds) -> None:
        super().__init__()
        self.weight_TOO = nn.Parameter(torch.eye(size).repeat(len(kinds.slot), 1, 1))

    def forward(self, rows_PO: Tensor, kind_P: Tensor) -> Tensor:
        # rows of one edge type side by side, so that a type costs one product
        order_P = kind_P.argsort(stable=True)
        counts = torch.bincount(kind_P, minlength=len(self.weight_TOO)).tolist()
        parts = rows_PO[order_P].split(counts)
        products = [part @ weight.T for part, weight in zip(parts, self.weight_TOO, strict=True)]
        return torch.empty_like(rows_PO).index_copy(0, order_P, torch.cat(products))
