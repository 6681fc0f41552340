"""`InputEncoder`: from what one kind of column says of nodes to rows that the first layer reads."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class InputEncoder(Protocol):
    """One file a kind of column; what all of them say of a node is added up."""

    def __call__(self, columns: Tensor) -> Tensor:
        """[n, E] rows of n nodes from their columns, one row of `columns` a node."""
