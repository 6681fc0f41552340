"""Graph filters over items: no training, a linear filter and an ideal low-pass filter (Shen et al., CIKM 2021).

With R̃ = D_U^-½ R D_I^-½ the symmetrically normalised matrix, P̃ = R̃ᵀR̃ is an adjacency of items. P̃ passes the low
frequencies of that graph best; the right singular vectors V of R̃ span them.

Shape legend: U users, I items, k factors.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from dist_gat.baselines.scorer import Matrix, Scorer
from dist_gat.config.sections import BaselineConfig

SHARE = 16


def fit_linear(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """s_u = r_u P̃: the linear filter alone."""
    return Scorer(linear_filter(matrix_UI, normalise(matrix_UI)))


def fit_gfcf(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """s_u = r_u (P̃ + α D_I^-½ V Vᵀ D_I^½), GF-CF; α is `gfcf_weight`.

    V has `gfcf_factors` columns; on small data one for every SHARE users or items, as a filter that passes much of the
    spectrum is no low-pass filter any more.
    """
    normal_UI = normalise(matrix_UI)
    filters = [linear_filter(matrix_UI, normal_UI)]
    smaller = min(matrix_UI.shape)
    if num_factors := min(config.gfcf_factors, max(smaller // SHARE, 1), smaller - 1):
        # singular vectors from a fixed start, so that the result is a function of the data
        start = np.random.default_rng(0).random(smaller)
        _, _, basis_kI = svds(normal_UI.astype(np.float64), num_factors, v0=start)
        root_I = np.sqrt(np.maximum(matrix_UI.sum(axis=0), 1))
        smooth_Uk = matrix_UI @ (basis_kI / root_I).T.astype(np.float32)
        filters.append((smooth_Uk, (config.gfcf_weight * basis_kI * root_I).astype(np.float32)))
    return Scorer(*filters)


def linear_filter(matrix_UI: csr_array, normal_UI: csr_array) -> tuple[Matrix, Matrix]:
    """R and P̃. P̃ is sparse [I, I], with at most Σ_u degree(u)² entries."""
    return matrix_UI, csr_array(normal_UI.T) @ normal_UI


def normalise(matrix_UI: csr_array) -> csr_array:
    """R̃ = D_U^-½ R D_I^-½, float32 [U, I]."""
    user_scale, item_scale = (
        diags_array((np.maximum(matrix_UI.sum(axis=axis), 1) ** -0.5).astype(np.float32)) for axis in (1, 0)
    )
    return csr_array(user_scale @ matrix_UI @ item_scale)
