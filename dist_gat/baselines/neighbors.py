"""UserKNN and ItemKNN: sums over the most similar users, or items.

Two rows with n_a and n_b ones, c of them in common, have the similarity c / (sqrt(n_a n_b) + h): the cosine with
shrinkage h, which discounts similarities that few interactions support (Ferrari Dacrema, Cremonesi and Jannach, RecSys
2019). Only the k most similar of each row count.

Shape legend: U users, I items, R rows that are compared, n rows of a block.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, vstack

from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import BaselineConfig

# cells of one dense block of similarities
BLOCK_CELLS = 1 << 24


def fit_userknn(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """score(u, i) = Σ_v s(u, v) [v has met i] over the k users v most similar to u (Herlocker et al., SIGIR 1999)."""
    return Scorer((nearest_rows(matrix_UI, config.userknn_neighbors, config.shrinkage), matrix_UI))


def fit_itemknn(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """score(u, i) = Σ_j s(j, i) over the items j of u that have i among their k most similar items.

    Deshpande and Karypis, TOIS 2004.
    """
    rows_IU = csr_array(matrix_UI.T)
    return Scorer((matrix_UI, nearest_rows(rows_IU, config.itemknn_neighbors, config.shrinkage)))


def nearest_rows(matrix: csr_array, num_neighbors: int, shrinkage: float) -> csr_array:
    """float32 [R, R]: each row's `num_neighbors` largest similarities to others, equal ones by number."""
    num_rows = matrix.shape[0]
    norm_R = np.sqrt(matrix.sum(axis=1)).astype(np.float32)
    columns = csr_array(matrix.T)
    step = max(BLOCK_CELLS // num_rows, 1)
    blocks = []
    for start in range(0, num_rows, step):
        similar_nR = (matrix[start : start + step] @ columns).toarray()
        # rows without interactions share none: 0 / 0 without shrinkage
        similar_nR /= np.maximum(np.outer(norm_R[start : start + step], norm_R) + np.float32(shrinkage), 1e-9)
        np.fill_diagonal(similar_nR[:, start:], 0)
        blocks.append(_largest_of_rows(similar_nR, min(num_neighbors, num_rows)))
    return vstack(blocks, format="csr")


def _largest_of_rows(values_nR: np.ndarray, count: int) -> csr_array:
    """The `count` largest positive values of each row."""
    least_n = np.partition(values_nR, -count, axis=1)[:, -count]
    row, column = np.nonzero((values_nR > 0) & (values_nR >= least_n[:, None]))
    value = values_nR[row, column]
    # equal values may give more than `count`
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    top = np.arange(len(row)) - np.searchsorted(row, row) < count
    return csr_array((value[top], (row[top], column[top])), shape=values_nR.shape)
