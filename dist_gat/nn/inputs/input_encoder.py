"""`InputEncoder`: turns columns of one kind into rows that the first layer reads.

Shape legend: n nodes, E embedding size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class EncodedColumn(NamedTuple):
    """rows_nE: what a column says of each node, a learned row where it is missing. present_n: bool, where it is not."""

    rows_nE: Tensor
    present_n: Tensor


class InputEncoder(Protocol):
    """There is one file for each kind of column. A missing value is a learned row, which begins as 0."""

    def __call__(self, columns: Tensor) -> EncodedColumn:
        """columns: float32 [n, width], as they are stored, see `dist_gat.data.column_layout`."""
