"""Popularity: the items with most interactions, for every user without the items that the user has met."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import BaselineConfig


def fit_popularity(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """score(u, i) = the number of training interactions of i."""
    count_I = np.asarray(matrix_UI.sum(axis=0), dtype=np.float32)
    return Scorer((np.ones((matrix_UI.shape[0], 1), np.float32), count_I[None, :]))
