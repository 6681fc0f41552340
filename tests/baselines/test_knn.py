"""UserKNN and ItemKNN against loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_contract import BaselineContract
from scipy.sparse import csr_array

from dist_gat.baselines import neighbors
from dist_gat.config.sections import BaselineConfig


def nearest(rows: np.ndarray, count: int, shrinkage: float) -> np.ndarray:
    """The similarities that count, by brute force; the rounding of float32 decides between none of them."""
    kept = np.zeros((len(rows), len(rows)))
    for a, one in enumerate(rows):
        similar = {}
        for b, other in enumerate(rows):
            shared = sum(x and y for x, y in zip(one, other, strict=True))
            if a != b and shared:
                similar[b] = shared / ((sum(one) * sum(other)) ** 0.5 + shrinkage)
        for b in sorted(similar, key=lambda b: (-np.float32(similar[b]), b))[:count]:
            kept[a, b] = similar[b]
    return kept


class TestUserKNN(BaselineContract):
    name = "userknn"

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        similar = nearest(dense_UI, config.userknn_neighbors, config.shrinkage)
        scores = np.zeros_like(dense_UI)
        for user, item in np.ndindex(scores.shape):
            scores[user, item] = sum(similar[user, v] for v in range(len(similar)) if dense_UI[v, item])
        return scores


class TestItemKNN(BaselineContract):
    name = "itemknn"

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        similar = nearest(dense_UI.T, config.itemknn_neighbors, config.shrinkage)
        scores = np.zeros_like(dense_UI)
        for user, item in np.ndindex(scores.shape):
            scores[user, item] = sum(similar[j, item] for j in range(len(similar)) if dense_UI[user, j])
        return scores


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = csr_array((np.random.default_rng(0).random((23, 12)) < 0.3).astype(np.float32))
    whole = neighbors.nearest_rows(matrix, 4, 0.0).toarray()
    monkeypatch.setattr(neighbors, "BLOCK_CELLS", 23 * 5)
    assert np.array_equal(neighbors.nearest_rows(matrix, 4, 0.0).toarray(), whole)
    assert (np.count_nonzero(whole, axis=1) <= 4).all()
    np.testing.assert_allclose(whole, nearest(matrix.toarray(), 4, 0.0), rtol=1e-6)


def test_without_shrinkage_rows_without_interactions_are_similar_to_none() -> None:
    matrix = csr_array(np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32))
    assert neighbors.nearest_rows(matrix, 9, 0.0).toarray() == pytest.approx(
        np.array([[0, 0, 0.5**0.5, 0], [0, 0, 0, 0], [0.5**0.5, 0, 0, 0], [0, 0, 0, 0]])
    )
