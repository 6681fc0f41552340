"""EASE against the closed form, and against what the closed form minimises."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_contract import TINY, BaselineContract, tiny_matrix
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.baselines import ease
from dist_gat.config.sections import BaselineConfig


class TestEASE(BaselineContract):
    name = "ease"

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        """Each item's weights by ridge regression on all other items."""
        weights = np.zeros((dense_UI.shape[1],) * 2)
        for item in range(len(weights)):
            others = np.delete(dense_UI, item, axis=1)
            left = others.T @ others + config.ease_l2 * np.eye(others.shape[1])
            weights[np.arange(len(weights)) != item, item] = np.linalg.solve(left, others.T @ dense_UI[:, item])
        return dense_UI @ weights


def test_the_inverse_in_place_is_the_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "ROWS", 7)
    dense = (np.random.default_rng(0).random((40, 25)) < 0.3).astype(np.float32)
    gram = ease.gram_matrix(csr_array(dense), 2.5)
    np.testing.assert_array_equal(gram, dense.T.astype(np.float64) @ dense + 2.5 * np.eye(25))
    np.testing.assert_allclose(ease.inverse(gram.copy(order="F")), np.linalg.inv(gram), rtol=1e-9, atol=1e-12)


def test_more_items_than_the_limit_are_refused_with_the_memory_they_take() -> None:
    config = TINY.model_copy(update={"ease_max_items": 8})
    with pytest.raises(ConfigError, match=r"GB for 9 items.*evaluate.baseline.ease_max_items=8"):
        ease.fit_ease(csr_array(tiny_matrix().astype(np.float32)), config)
