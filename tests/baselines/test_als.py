"""ALS: the factors that `implicit` finds solve the equations of the paper."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from baseline_contract import EVERYONE, EVERYTHING, TINY, BaselineContract, tiny_matrix
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.baselines.als import fit_als
from dist_gat.config.sections import BaselineConfig


def half_step(target_AB: np.ndarray, rows_BF: np.ndarray, config: BaselineConfig) -> np.ndarray:
    """The rows [A, F] that are best for given `rows_BF`: (Yᵀ C_a Y + λ I)⁻¹ Yᵀ C_a r_a."""
    solved = []
    for target_B in target_AB:
        confidence = np.where(target_B > 0, config.als_alpha, 1.0)
        left = (rows_BF * confidence[:, None]).T @ rows_BF + config.als_regularization * np.eye(rows_BF.shape[1])
        solved.append(np.linalg.solve(left, rows_BF.T @ (confidence * target_B)))
    return np.array(solved)


class TestALS(BaselineContract):
    name = "als"
    tolerance = 2e-3

    @pytest.fixture(autouse=True)
    def _needs_implicit(self) -> None:
        pytest.importorskip("implicit", reason="an optional library: pip install 'dist-gat[baselines]'")

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        """Exact alternating solutions from the library's own factors: they stay where they are."""
        score = self.fit(dense_UI)
        users_UF, items_IF = score.lefts[0], score.rights[0].T
        for _ in range(20):
            users_UF = half_step(dense_UI, items_IF, config)
            items_IF = half_step(dense_UI.T, users_UF, config)
        return users_UF @ items_IF.T

    def test_it_fits_what_was_met(self) -> None:
        dense = tiny_matrix()
        scores = self.fit(dense)(EVERYONE, EVERYTHING)
        assert scores[dense > 0].min() > scores[dense == 0].mean() + 0.3


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(ConfigError, match=r"pip install 'dist-gat\[baselines\]'"):
        fit_als(csr_array(tiny_matrix().astype(np.float32)), TINY)
