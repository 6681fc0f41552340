"""NDCG with gains, such as counts or ratings, instead of hits."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array


def graded_ndcg(ranked_UK: np.ndarray, gains_UI: csr_array) -> np.ndarray:
    """float64 [U]: Σ_j g(i_j) / log2(j + 1) over the ranked items i_1 … i_K of a user, over its largest possible value
    (Järvelin and Kekäläinen, TOIS 2002); 0 for a user without gains. As scikit-learn's `ndcg_score` without ties.

    ranked_UK: int64, items from 0, -1 behind the last. gains_UI: the gain of each item, 0 or more.
    """
    num_users, k = ranked_UK.shape
    discount_K = 1.0 / np.log2(np.arange(2, k + 2))
    found_UK = np.asarray(gains_UI[np.arange(num_users)[:, None], np.maximum(ranked_UK, 0)].todense())
    found_U = (np.where(ranked_UK >= 0, found_UK, 0.0) * discount_K).sum(axis=1)
    ideal_U = np.zeros(num_users)
    for user in range(num_users):
        gains = np.sort(gains_UI.data[gains_UI.indptr[user] : gains_UI.indptr[user + 1]])[::-1][:k]
        ideal_U[user] = gains @ discount_K[: len(gains)]
    return np.divide(found_U, ideal_U, out=np.zeros(num_users), where=ideal_U > 0)
