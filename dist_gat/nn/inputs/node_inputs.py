"""`NodeInputs`: the rows that the first layer reads, each of the row of a node's ID and its encoded columns.

Shape legend: S nodes of the sample, n nodes of one type, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dist_gat.config.model_sections import InputsConfig
from dist_gat.data.column_layout import Layout
from dist_gat.nn.inputs.input_encoder import Factors
from dist_gat.nn.inputs.type_inputs import NOTHING, Given, TypeInputs

# node type → (positions among S, int64 [n], and columns, float32 [n, width])
Features = Mapping[str, tuple[Tensor, Tensor]]
AS_STORED: Mapping[str, Given] = {}


class NodeInputs(nn.Module):
    """x_s = e_s for a type without columns, else the fusion of e_s with them; e_s is the row of its ID, see
    `EmbeddingShard`. An ID row that a node doesn't have is 0: of a type that has none, of a node that training never
    met, and of one that a training step leaves out.
    """

    def __init__(
        self, layouts: Mapping[str, Layout], size: int, config: InputsConfig | None = None, init_std: float = 0.1
    ) -> None:
        """layouts: of each node type that has columns."""
        super().__init__()
        self.config = config or InputsConfig()
        # a module can't be called `keys`, as a type may
        self.types = nn.ModuleDict(
            {f"type_{kind}": TypeInputs(layout, size, self.config, init_std) for kind, layout in layouts.items()}
        )

    def forward(
        self, embedding_SE: Tensor, features: Features, has_id_S: Tensor | None = None,
        given: Mapping[str, Given] = AS_STORED,
    ) -> Tensor:  # fmt: skip
        """[S, E]. features: of each type that has columns, also where no node of it is in the sample (n = 0), so that
        every worker's backward reaches the same parameters. has_id_S: bool, see `ids_present`; None: all.
        given: by node type, what some encoders read instead of the stored columns.
        """
        assert {f"type_{kind}" for kind in features} == self.types.keys(), "give every type's features, also if n = 0"
        rows_SE = embedding_SE if has_id_S is None else torch.where(has_id_S[:, None], embedding_SE, 0.0)
        for kind, (at, columns) in features.items():
            has_id_n = None if has_id_S is None else has_id_S[at]
            rows_nE = self.types[f"type_{kind}"](embedding_SE[at], has_id_n, columns, given.get(kind, NOTHING))
            rows_SE = rows_SE.index_copy(0, at, rows_nE.to(rows_SE.dtype))
        return rows_SE

    def factors(self, features: Features, num_nodes: int) -> list[Factors]:
        """Of each encoder and all S nodes: 0 of those whose type is not the encoder's. num_nodes: S."""
        found: list[Factors] = []
        for kind, (at, columns) in features.items():
            of_type: Any = self.types[f"type_{kind}"]
            for own in of_type.factors(columns):
                code_SL = None if own.code_nL is None else spread(own.code_nL, at, num_nodes)
                found.append(Factors(spread(own.value_nL, at, num_nodes), code_SL, own.size))
        return found


def spread(values_nL: Tensor, at: Tensor, num_nodes: int) -> Tensor:
    """[S, L]: values at some places, and 0 at the others."""
    return values_nL.new_zeros(num_nodes, values_nL.shape[1]).index_copy_(0, at, values_nL)
