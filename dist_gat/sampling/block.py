"""`Block`: one hop of message passing, as plain tensors.

Shape legend: S sources, D destinations, F fan-out (the widest row), K edge types that lead to one type
(at most).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dist_gat.sampling.movable import Movable


@dataclass(frozen=True)
class Block(Movable):
    """Dst-major neighbour lists over a fixed fan-out.

    neighbors_DF: int64, positions among the S sources; rows are padded at their end with 0.
    count_D:      int64, how many entries of each row are real.
    num_src:      S. The destinations are sources 0 to D-1, unless `dst_at_D` says otherwise.
    degree_SK:    int64, in-degrees of each source in the whole training graph, by edge type; None where no layer asks.
    edges:        what the layers read of the edges, by name in `EDGE_COLUMNS`, [D, F].
    dst_at_D:     int64, positions of the destinations among the sources, or None: the first D.
    """

    neighbors_DF: Tensor
    count_D: Tensor
    num_src: int
    degree_SK: Tensor | None = None
    dst_at_D: Tensor | None = None
    edges: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_dst(self) -> int:
        return self.neighbors_DF.shape[0]

    def own_rows(self, values_S: Tensor) -> Tensor:
        """The destinations' entries of `values_S`, a row or number a source; a view where they are the first D."""
        return values_S[: self.num_dst] if self.dst_at_D is None else values_S.index_select(0, self.dst_at_D)

    def mask_DF(self) -> Tensor:
        """bool, True where an entry is a real neighbour."""
        fan_out = self.neighbors_DF.shape[1]
        return torch.arange(fan_out, device=self.count_D.device) < self.count_D[:, None]

    def kind_DF(self) -> Tensor:
        """int64, the number of each entry's edge type; 0 where nobody asked for them, as in a graph of one."""
        return self.edges["kind"] if "kind" in self.edges else torch.zeros_like(self.neighbors_DF)

    def keeping(self, kept_DF: Tensor) -> tuple[Block, Tensor]:
        """The block with the real edges of `kept_DF`, bool, alone, in their order; and int64 [D, F], where each entry
        was."""
        kept_DF = self.mask_DF() & kept_DF
        order_DF = (~kept_DF).long().argsort(dim=1, stable=True)
        edges = {name: values.gather(1, order_DF) for name, values in self.edges.items()}
        near_DF = self.neighbors_DF.gather(1, order_DF)
        return replace(self, neighbors_DF=near_DF, count_D=kept_DF.sum(dim=1), edges=edges), order_DF
