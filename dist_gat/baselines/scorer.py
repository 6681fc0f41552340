"""`Scorer`: what every baseline makes of the training matrix, the scores of some users for some items.

Shape legend: U users, I items, n users and m items of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csc_array, csr_array, issparse

from dist_gat.config.sections import BaselineConfig

Matrix: TypeAlias = np.ndarray | csr_array


class Scorer:
    """score(u, i) = Σ_t left_t[u, :] · right_t[:, i], a sum of products of matrices, sparse or dense.

    Ranking goes through all users for one block of items before the next, so the right-hand columns of the last
    block are kept.
    """

    def __init__(self, *terms: tuple[Matrix, Matrix]) -> None:
        """terms: pairs of [U, x] and [x, I]."""
        self.lefts = [left for left, _ in terms]
        self.rights = [csc_array(right) if issparse(right) else right for _, right in terms]
        self._block: tuple[slice, list[Matrix]] = (slice(0, 0), [])

    def with_left(self, left: Matrix) -> Scorer:
        """The scores of other rows, [U, x], where there is one term."""
        (right,) = self.rights
        return Scorer((left, right))

    def __call__(self, users: slice | np.ndarray, items: slice) -> np.ndarray:
        """float32 [n, m]: scores of the users and items at these positions of the training matrix."""
        if self._block[0] != items:
            columns = [right[:, items] for right in self.rights]
            self._block = (items, [csr_array(block) if issparse(block) else block for block in columns])
        products = [dense_product(left[users], right) for left, right in zip(self.lefts, self._block[1], strict=True)]
        return reduce(np.add, products)


def dense_product(left: Matrix, right: Matrix) -> np.ndarray:
    """The product as a dense float32 array."""
    product: Any = left @ right
    return np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), dtype=np.float32)


# a baseline: from the training matrix, float32 [U, I] with 1 at each interaction, and the settings
Fit = Callable[[csr_array, BaselineConfig], Scorer]
