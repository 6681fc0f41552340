"""`TextNodes`: the nodes whose texts a training step sends through the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dist_gat.base.random import uniform
from dist_gat.data.column_layout import TrainableText
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import share_rows


@dataclass(frozen=True)
class TextNodes:
    """Of all nodes with a text that the ranks meet in a step, the `most` with the lowest draws, which are functions of
    seed, epoch, step and node. So the choice does not depend on how the seeds are divided.
    """

    column: TrainableText
    most: int

    def choose(self, nodes: np.ndarray, rows: np.ndarray, key: np.uint64, channel: Channel) -> np.ndarray:
        """int64: places among distinct nodes, int64 [n], of the type with these columns, float32 [n, W]. Collective.

        key: of the step.
        """
        with_text = np.flatnonzero(np.ascontiguousarray(rows[:, self.column.tokens.offset]).view(np.int32) >= 0)
        own = self._lowest(nodes[with_text], key)
        told = np.unique(share_rows(torch.from_numpy(own), channel).numpy())
        return with_text[np.isin(nodes[with_text], self._lowest(told, key))]

    def _lowest(self, nodes: np.ndarray, key: np.uint64) -> np.ndarray:
        return nodes[np.argsort(uniform(key, nodes), kind="stable")[: self.most]]
