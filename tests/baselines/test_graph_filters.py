"""The linear filter and GF-CF against dense computations."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_contract import TINY, BaselineContract, tiny_matrix
from scipy.sparse import csr_array

from dist_gat.baselines.graph_filters import fit_gfcf, fit_linear
from dist_gat.config.sections import BaselineConfig


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
        """By the eigenvector of the largest eigenvalue of P̃: 9 items are too few for a second factor."""
        normal = normalise(dense_UI)
        adjacency = normal.T @ normal
        values, vectors = np.linalg.eigh(adjacency)
        assert values[-1] - values[-2] > 0.01, "the factor is well defined"
        low_pass = np.outer(vectors[:, -1], vectors[:, -1])
        root = np.sqrt(np.maximum(dense_UI.sum(axis=0), 1))
        return dense_UI @ (adjacency + 0.3 * np.diag(1 / root) @ low_pass @ np.diag(root))


@pytest.mark.parametrize("shape", [(1, 9), (14, 1), (1, 1)])
def test_data_too_small_for_factors_have_the_linear_filter_alone(shape: tuple[int, int]) -> None:
    matrix = csr_array(tiny_matrix()[: shape[0], : shape[1]].astype(np.float32))
    everything = tuple(slice(0, size) for size in shape)
    assert np.array_equal(fit_gfcf(matrix, TINY)(*everything), fit_linear(matrix, TINY)(*everything))


def test_the_factors_are_a_function_of_the_data() -> None:
    """Two factors of five communities alike: which ones is up to where the iteration starts."""
    matrix = csr_array(np.kron(np.eye(5), np.ones((8, 8))).astype(np.float32))
    one, other = (fit_gfcf(matrix, TINY)(slice(0, 40), slice(0, 40)) for _ in range(2))
    assert np.array_equal(one, other)


def test_a_larger_matrix_has_more_factors() -> None:
    dense = (np.random.default_rng(0).random((90, 70)) < 0.2).astype(np.float64)
    normal = normalise(dense)
    vectors = np.linalg.svd(normal)[2][: 70 // 16].T
    root = np.sqrt(dense.sum(axis=0))
    expected = dense @ (normal.T @ normal + 0.3 * np.diag(1 / root) @ vectors @ vectors.T @ np.diag(root))
    config = TINY.model_copy(update={"gfcf_factors": 256})
    found = fit_gfcf(csr_array(dense.astype(np.float32)), config)(slice(0, 90), slice(0, 70))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
