"""Popularity: a count."""

from __future__ import annotations

import numpy as np
from baseline_contract import BaselineContract

from dist_gat.config.sections import BaselineConfig


class TestPopularity(BaselineContract):
    name = "popularity"

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        return np.tile(dense_UI.sum(axis=0), (len(dense_UI), 1))
