"""NDCG with gains against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import ndcg_score

from dist_gat.evaluate.graded_ndcg import graded_ndcg

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_it_is_that_of_scikit_learn(k: int) -> None:
    gains = RNG.poisson(0.3, size=(12, 30)) * RNG.integers(1, 900, size=(12, 30)).astype(np.float64)
    gains[3] = 0
    scores = RNG.normal(size=(12, 30))
    ranked = np.argsort(-scores, axis=1)[:, :k]
    found = graded_ndcg(ranked, csr_array(gains))
    assert found[3] == 0
    for user in range(12):
        assert found[user] == pytest.approx(ndcg_score(gains[[user]], scores[[user]], k=k), abs=1e-12)


def test_places_behind_the_last_item_gain_nothing() -> None:
    gains = csr_array(np.array([[5.0, 0.0, 2.0]]))
    assert graded_ndcg(np.array([[2, -1, -1]]), gains) == pytest.approx(2 / (5 + 2 / np.log2(3)))
