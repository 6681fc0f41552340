"""The linear filter and GF-CF against dense computations."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_contract import TINY, BaselineContract, tiny_matrix
from scipy.sparse import csr_array

from dist_gat.config import BaselineConfig
from dist_gat.evaluate.baselines.filters import fit_gfcf, fit_linear


def normalise(dense_UI: np.ndarray) -> np.ndarray:
    degree_U, degree_I = (np.maximum(dense_UI.sum(axis=axis), 1) for axis in (1, 0))
    return dense_UI / np.sqrt(np.outer(degree_U, degree_I))


class TestLinear(BaselineContract):
    name = "linear"

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        normal = normalise(dense_UI)
        return dense_UI @ normal.T @ normal


class TestGFCF(BaselineContract):
    name = "gfcf"

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        """By the eigenvectors of the largest eigenvalues of P̃. A quarter of 9 items are 2 factors."""
        normal = normalise(dense_UI)
        adjacency = normal.T @ normal
        values, vectors = np.linalg.eigh(adjacency)
        assert values[-2] - values[-3] > 0.01, "the two factors are well defined"
        low_pass = vectors[:, -2:] @ vectors[:, -2:].T
        root = np.sqrt(np.maximum(dense_UI.sum(axis=0), 1))
        return dense_UI @ (adjacency + 0.3 * np.diag(1 / root) @ low_pass @ np.diag(root))


@pytest.mark.parametrize("shape", [(3, 9), (14, 3), (1, 1)])
def test_data_too_small_for_factors_have_the_linear_filter_alone(shape: tuple[int, int]) -> None:
    matrix = csr_array(tiny_matrix()[: shape[0], : shape[1]].astype(np.float32))
    everything = tuple(slice(0, size) for size in shape)
    assert np.array_equal(fit_gfcf(matrix, TINY)(*everything), fit_linear(matrix, TINY)(*everything))
