"""`Block`: one hop of message passing, as plain tensors.

Shape legend: S sources, D destinations, F fan-out (the widest row).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dist_gat.sampling.movable import Movable


@dataclass(frozen=True)
class Block(Movable):
    """Dst-major neighbour lists over a fixed fan-out.

    neighbors_DF: int64, positions among the S sources; rows are padded at their end with 0.
    count_D:      int64, how many entries of each row are real.
    num_src:      S. The destinations are sources 0 to D-1, unless `dst_at_D` says otherwise.
    degree_S:     int64, in-degree of each source in the whole training graph, or None where no layer asks.
    dst_at_D:     int64, positions of the destinations among the sources, or None: the first D.
    """

    neighbors_DF: Tensor
    count_D: Tensor
    num_src: int
    degree_S: Tensor | None = None
    dst_at_D: Tensor | None = None

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
