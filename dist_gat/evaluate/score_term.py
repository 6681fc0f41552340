"""`ScoreTerm`: a term of the score that is added to the inner product of a user's and an item's row."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ScoreTerm(Protocol):
    """Scores of blocks of items, one block after the other.

    block_size: the most items of a block.
    """

    block_size: int

    def next_block(self, first: int, last: int) -> None:
        """The next scores are of item nodes [first, last). Collective: every rank calls it for the same blocks."""

    def scores(self, part: int, users: np.ndarray) -> np.ndarray:
        """float32 [n, items of the block]: of int64 [n] nodes of a part."""
