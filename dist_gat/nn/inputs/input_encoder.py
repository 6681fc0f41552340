"""`InputEncoder`: turns columns of one kind into rows that the first layer reads.

All encoders are linear in their weights: the row of a node is φ W, with factors φ [D] that are a function of its
columns and weights W [D, E]. `Factors` has them, for who needs gradients by user (`dist_gat.tasks.input_gradients`).

Shape legend: n nodes, L factors of a node that are written down, D rows of weights, E embedding size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class EncodedColumn(NamedTuple):
    """rows_nE: what a column says of each node, a learned row where it is missing. present_n: bool, where it is not."""

    rows_nE: Tensor
    present_n: Tensor


class Factors(NamedTuple):
    """What a node multiplies the weights of an encoder with. value_nL: of the weights `code_nL`, int64; None: of all D,
    in order. size: D."""

    value_nL: Tensor
    code_nL: Tensor | None
    size: int


class InputEncoder(Protocol):
    """There is one file for each kind of column. A missing value is a learned row, which begins as 0."""

    def __call__(self, columns: Tensor) -> EncodedColumn:
        """columns: float32 [n, width], as they are stored, see `dist_gat.data.column_layout`."""

    def factors(self, columns: Tensor) -> Factors:
        """φ of nodes: 0 of padding."""
