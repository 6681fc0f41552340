"""`NodeInputs`: the rows that the first layer reads, each the sum of a node's ID embedding and encoded columns.

Shape legend: S nodes of the sample, n nodes of one type, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from dist_gat.nn.inputs.numeric import NumericInput

# node type → (positions among S, int64 [n], and columns, float32 [n, features])
Features = Mapping[str, tuple[Tensor, Tensor]]


class NodeInputs(nn.Module):
    """x_s = e_s + the rows of its type's columns, where it has some. e_s is the row of its ID, see `EmbeddingShard`."""

    def __init__(self, feature_sizes: Mapping[str, int], size: int) -> None:
        """feature_sizes: number of numeric columns of each node type that has some."""
        super().__init__()
        self.encoders = nn.ModuleDict({kind: NumericInput(count, size) for kind, count in feature_sizes.items()})

    def forward(self, embedding_SE: Tensor, features: Features) -> Tensor:
        """[S, E]. features: of each type that has columns, also where no node of it is in the sample (n = 0), so that
        every worker's backward reaches the same parameters.
        """
        assert features.keys() == self.encoders.keys(), "give the features of every type, also where n = 0"
        rows_SE = embedding_SE
        for kind, (index, columns) in features.items():
            rows_SE = rows_SE.index_add(0, index, self.encoders[kind](columns.to(rows_SE.dtype)).to(rows_SE.dtype))
        return rows_SE
