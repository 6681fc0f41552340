"""ALS: matrix factorisation with a confidence for every cell of the matrix, by the library `implicit`."""

from __future__ import annotations

from scipy.sparse import csr_array, csr_matrix

from dist_gat.base.extra import missing
from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import BaselineConfig


def fit_als(matrix_UI: csr_array, config: BaselineConfig) -> Scorer:
    """score(u, i) = x_u · y_i that minimise Σ_ui c_ui (r_ui - x_u · y_i)² + λ (Σ_u |x_u|² + Σ_i |y_i|²).

    r_ui is 1 and c_ui is `als_alpha` for an interaction, 0 and 1 elsewhere (Hu, Koren and Volinsky, ICDM 2008), solved
    by alternating conjugate gradients (Takács, Pilászy and Tikk, RecSys 2011). Raises `ConfigError` without `implicit`.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError as err:
        raise missing("implicit", "als", "baselines", err) from None
    # implicit has threads of its own, which threads of the matrix library would slow down
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            config.als_factors, config.als_regularization, config.als_alpha, iterations=config.als_iterations,
            random_state=0,
        )  # fmt: skip
        model.fit(csr_matrix(matrix_UI), show_progress=False)
    return Scorer((model.user_factors, model.item_factors.T))
