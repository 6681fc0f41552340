"""`ColumnDecoder`: how far what a node's columns hold is from what its representation says of them.

Shape legend: n nodes of a type, f width of its columns, R representation size, D numbers of a vector, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_gat.data.column_layout import KNOWN, Column, Layout
from dist_gat.nn.inputs.category import codes_of


class ColumnDecoder(nn.Module):
    """A linear map of representations for each column of a type, and its loss against the column.

    vector, text:         (1 - cosine)², as in GraphMAE (Hou et al., KDD 2022).
    numeric:              the squared error.
    category, categories: the cross entropy of the node's categories, of several their mean.
    """

    def __init__(self, layout: Layout, size: int) -> None:
        super().__init__()
        self.columns = [column for column in layout if column.kind != KNOWN]
        # a module can't be called `items`, as a column may
        self.maps = nn.ModuleDict(
            {f"column_{column.name}": nn.Linear(size, column.num_categories or column.width) for column in self.columns}
        )

    def forward(self, rows_nR: Tensor, columns_nf: Tensor) -> Tensor:
        """[n]: the mean loss of the columns of which a node has a value; 0 where it has none."""
        losses, present = [], []
        for column, decode in zip(self.columns, self.maps.values(), strict=True):
            loss_n, present_n = column_loss(column, decode(rows_nR), columns_nf[:, column.slice])
            losses.append(torch.where(present_n, loss_n, 0.0))
            present.append(present_n)
        return torch.stack(losses).sum(dim=0) / torch.stack(present).sum(dim=0).clamp(min=1)


def column_loss(column: Column, decoded: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """[n], of anything where the value is missing, and bool [n], where it is not. decoded: [n, D] or [n, C]."""
    if column.num_categories:
        code_nL = codes_of(values.contiguous())
        is_code_nL = code_nL >= 0
        log_nL = decoded.log_softmax(dim=1).gather(1, code_nL.clamp(min=0).long())
        count_n = is_code_nL.sum(dim=1)
        return -torch.where(is_code_nL, log_nL, 0.0).sum(dim=1) / count_n.clamp(min=1), count_n > 0
    present_n = ~values.isnan().any(dim=1)
    known_nD = values.nan_to_num().to(decoded.dtype)
    if column.kind == "numeric":
        return (decoded - known_nD).square().mean(dim=1), present_n
    return (1 - functional.cosine_similarity(decoded, known_nD, dim=1)).square(), present_n


class ColumnDecoders(nn.Module):
    """One `ColumnDecoder` a node type that has columns."""

    def __init__(self, layouts: Mapping[str, Layout], size: int) -> None:
        super().__init__()
        self.size = size
        self.types = nn.ModuleDict({f"type_{kind}": ColumnDecoder(layout, size) for kind, layout in layouts.items()})

    def forward(self, kind: str, rows_nR: Tensor, columns_nf: Tensor) -> Tensor:
        """[n], see `ColumnDecoder`. rows_nR: may have own scores behind what the encoder made."""
        found: Tensor = self.types[f"type_{kind}"](rows_nR[:, : self.size], columns_nf)
        return found
