"""`TypeInputs`: the encoders of the columns of one node type, and how their rows become one.

Shape legend: n nodes of the type, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from dist_gat.config.model_sections import InputsConfig
from dist_gat.data.column_layout import OUR_OWN, WEIGHTS, Column, Layout
from dist_gat.nn.inputs.categories import CategoriesInput
from dist_gat.nn.inputs.category import CategoryInput
from dist_gat.nn.inputs.fusion import build_fusion
from dist_gat.nn.inputs.input_encoder import EncodedColumn, Factors
from dist_gat.nn.inputs.numeric import NumericInput
from dist_gat.nn.inputs.vector import VectorInput

# encoder → columns that it reads, [n, width]
Given = Mapping[str, Tensor]
NOTHING: Given = {}


class TypeInputs(nn.Module):
    """layout: of the type's columns; the first is `known`, then come all numeric ones."""

    def __init__(self, layout: Layout, size: int, config: InputsConfig, init_std: float) -> None:
        super().__init__()
        numeric = list(takewhile(lambda column: column.kind == "numeric", layout[1:]))
        self.slices: list[slice] = []
        self.encoders = nn.ModuleDict()
        if numeric:
            self.slices.append(slice(numeric[0].offset, numeric[-1].slice.stop))
            self.encoders["numeric"] = NumericInput(len(numeric), size)
        weights = {column.name.removesuffix(f".{WEIGHTS}"): column for column in layout if column.kind == WEIGHTS}
        for column in layout[1 + len(numeric) :]:
            if column.kind in OUR_OWN:
                continue
            # weights stand behind their codes
            self.slices.append(slice(column.offset, weights.get(column.name, column).slice.stop))
            self.encoders[encoder_name(column)] = build_encoder(column, size, init_std, column.name in weights)
        self.fusion = build_fusion(config.fusion, 1 + len(self.encoders), size)

    def forward(
        self, ids_nE: Tensor, has_id_n: Tensor | None, columns: Tensor, given: Given = NOTHING
    ) -> Tensor:  # fmt: skip
        """[n, E]. ids_nE: rows of the nodes' IDs. has_id_n: bool, which of them count; None: all of known nodes.

        columns: float32 [n, width], as they are stored. given: what some encoders read instead.
        """
        present_n = columns[:, 0] != 0
        if has_id_n is not None:
            present_n = present_n & has_id_n
        parts = [EncodedColumn(torch.where(present_n[:, None], ids_nE, 0.0), present_n)]
        for at, (name, encode) in zip(self.slices, self.encoders.items(), strict=True):
            parts.append(encode(given[name] if name in given else columns[:, at]))
        rows: Tensor = self.fusion(parts)
        return rows

    def factors(self, columns: Tensor) -> list[Factors]:
        """Of each encoder. columns: as above."""
        encoders: Any = self.encoders.values()
        return [encode.factors(columns[:, at]) for at, encode in zip(self.slices, encoders, strict=True)]


def encoder_name(column: Column) -> str:
    """Of the encoder of a column that is not numeric. A module can't be called `items`, as a column may."""
    return f"column_{column.name}"


def build_encoder(column: Column, size: int, init_std: float, has_weights: bool = False) -> nn.Module:
    if column.kind == "category":
        return CategoryInput(column.num_categories, size, init_std)
    if column.kind == "categories":
        return CategoriesInput(column.num_categories, size, init_std, has_weights)
    return VectorInput(column.width, size, init_std)
