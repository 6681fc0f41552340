"""EASE: a linear autoencoder over items, in closed form.

Shape legend: U users, I items.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import BaselineConfig

ROWS = 1024


def fit_ease(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """score(u, i) = Σ_j X_uj B_ji where B minimises |X - X B|² + λ |B|² with a zero diagonal.

    With P = (XᵀX + λ I)⁻¹: B_ji = -P_ji / P_ii for j ≠ i (Steck, WWW 2019). The matrix is dense, float64 [I, I],
    and inverted in place. Raises `ConfigError` where there are more items than `ease_max_items`.
    """
    num_items = matrix_UI.shape[1]
    if num_items > config.ease_max_items:
        raise ConfigError(
            f"ease inverts a dense matrix of items × items, here {8 * num_items**2 / 1e9:,.1f} GB for {num_items:,} "
            f"items; it runs for evaluate.baseline.ease_max_items={config.ease_max_items} or fewer: raise that where "
            "the memory is there"
        )
    weights_II = inverse(gram_matrix(matrix_UI, config.ease_l2))
    weights_II /= -np.diag(weights_II)
    np.fill_diagonal(weights_II, 0)
    return Scorer((matrix_UI, weights_II))


def gram_matrix(matrix_UI: csr_array, l2: float) -> np.ndarray:
    """float64 [I, I]: XᵀX + l2 · I, column-major."""
    num_items = matrix_UI.shape[1]
    # row by row of XᵀX, as its sparse form may be larger than the dense one
    rows_IU = csr_array(matrix_UI.T)
    gram_II = np.zeros((num_items, num_items), order="F")
    for start in range(0, num_items, ROWS):
        gram_II[:, start : start + ROWS] = (rows_IU[start : start + ROWS] @ matrix_UI).toarray().T
    gram_II[np.diag_indices(num_items)] += l2
    return gram_II


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix, in its own memory.

    Uses torch, because scipy's OpenBLAS crashes where several threads factor a matrix of 17 thousand rows.
    """
    assert matrix.flags.f_contiguous, "LAPACK works in place on columns"
    in_place = torch.from_numpy(matrix)
    _, failed = torch.linalg.cholesky_ex(in_place, out=(in_place, torch.empty((), dtype=torch.int32)))
    assert not failed, "l2 > 0 makes the matrix positive definite"
    torch.cholesky_inverse(in_place, out=in_place)
    return matrix
