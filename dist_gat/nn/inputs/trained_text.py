"""`TrainedText`: the column of text whose encoder trains with the graph.

Shape legend: n nodes of its type, T those whose texts are encoded, L tokens, D length of a vector, W width of columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dist_gat.data.column_layout import TrainableText
from dist_gat.data.column_values import scaled
from dist_gat.nn.inputs.node_inputs import Features
from dist_gat.nn.inputs.type_inputs import Given, encoder_name
from dist_gat.sampling.text_nodes import TextNodes
from dist_gat.text.text_tower import TextTower


class TrainedText(nn.Module):
    """Vectors of nodes by their texts: those of the nodes that a step chose come from the encoder, the others are kept
    vectors, which stand in the columns. All are scaled as `prepare` scaled the first ones.
    """

    def __init__(self, column: TrainableText, tower: TextTower, encoder: str, fingerprint: str) -> None:
        """encoder, fingerprint: the encoder's name and the digest of its files."""
        super().__init__()
        self.column, self.tower = column, tower
        self.made_by = {"encoder": encoder, "fingerprint": fingerprint}

    @property
    def nodes(self) -> TextNodes:
        """Whose texts a step encodes."""
        return TextNodes(self.column, self.tower.config.nodes_per_step)

    def forward(self, features: Features, text_T: Tensor) -> Mapping[str, Given]:
        """What the input encoder of the column reads. text_T: int64, places among the nodes of the type.

        Differentiable in all A and B of the encoder, also with T = 0.
        """
        columns_nW = features[self.column.node_type][1]
        tokens_TL = columns_nW[text_T][:, self.column.tokens.slice].contiguous().view(torch.int32)
        kept_nD = columns_nW[:, self.column.vector.slice].to(self.tower.dtype)
        vectors_TD = self.scaled(self.tower(tokens_TL))
        vectors_nD = (kept_nD + self.tower.nothing()).index_copy(0, text_T, vectors_TD)
        return {self.column.node_type: {encoder_name(self.column.vector): vectors_nD}}

    def scaled(self, vectors_TD: Tensor) -> Tensor:
        """As `scaled` of `dist_gat.data.column_values`, which has no gradients."""
        column = self.column.vector
        if column.scale == "standardize":
            mean_D, deviation_D = (
                torch.tensor(moment, dtype=torch.float64, device=vectors_TD.device)
                for moment in (column.mean, column.deviation)
            )
            return ((vectors_TD.double() - mean_D) / deviation_D).to(vectors_TD.dtype)
        return nn.functional.normalize(vectors_TD, eps=1e-30) if column.scale == "l2" else vectors_TD

    @torch.no_grad()
    def stored(self, tokens_bL: np.ndarray) -> np.ndarray:
        """float32 [b, D]: the vectors of texts of L tokens each as they are stored, by the present A and B."""
        vectors_bD = self.tower.vectors(torch.from_numpy(tokens_bL)).float().cpu().numpy()
        column = self.column.vector
        return scaled(vectors_bD, column.scale, column.mean, column.deviation).astype(np.float32)

    def renewed(self, features: Features) -> dict[str, tuple[Tensor, Tensor]]:
        """The same with the vectors of all texts by the present A and B."""
        at, columns = features[self.column.node_type]
        columns_nW = columns.numpy().copy()
        columns_nW[:, self.column.vector.slice] = self.renew(columns_nW)
        return {**features, self.column.node_type: (at, torch.from_numpy(columns_nW))}

    def renew(self, columns_nW: np.ndarray) -> np.ndarray:
        """float32 [n, D]: the vectors of nodes by the present A and B; of those without a text what is stored."""
        found_nD = columns_nW[:, self.column.vector.slice].copy()
        tokens_nL, lengths_n = self.column.tokens_of(columns_nW), self.column.lengths_of(columns_nW)
        for some in self.tower.batches(lengths_n):
            if length := int(lengths_n[some[0]]):
                found_nD[some] = self.stored(tokens_nL[some, :length])
        return found_nD
