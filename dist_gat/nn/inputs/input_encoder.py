"""`InputEncoder`: turns columns of one kind into rows that the first layer reads."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class InputEncoder(Protocol):
    """There is one file for each kind of column; a node's rows of all kinds are added."""

    def __call__(self, columns: Tensor) -> Tensor:
        """[n, E] rows of n nodes from their columns, one row of `columns` a node."""
