"""Baselines of ratings, clicks and counts against other ways to compute them, and through `compare`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from dist_gat.baselines.pair_baselines import (
    DAMPING,
    PAIR_BASELINES,
    LabelledPairs,
    fit_biases,
    fit_boosting,
    fit_rates,
)

RNG = np.random.default_rng(2)
USERS, ITEMS = np.nonzero(RNG.random((12, 9)) < 0.6)
EVERYONE, EVERYTHING = (x.ravel() for x in np.meshgrid(np.arange(12), np.arange(9), indexing="ij"))


def pairs_of(labels: np.ndarray) -> LabelledPairs:
    return LabelledPairs(USERS, ITEMS, labels.astype(np.float64), 12, 9, np.ones(len(labels)))


def test_biases_are_penalised_least_squares() -> None:
    labels = RNG.normal(size=len(USERS)) + 0.5 * USERS - 0.3 * ITEMS
    mean = labels.mean()

    def objective(biases: np.ndarray) -> float:
        errors = labels - mean - biases[USERS] - biases[12 + ITEMS]
        return float((errors**2).sum() + DAMPING * (biases**2).sum())

    best = minimize(objective, np.zeros(21)).x
    found = fit_biases(pairs_of(labels))(EVERYONE, EVERYTHING)
    np.testing.assert_allclose(found, mean + best[EVERYONE] + best[12 + EVERYTHING], atol=1e-3)


def test_rates_are_products_of_damped_means() -> None:
    labels = RNG.poisson(3, len(USERS))
    found = fit_rates(pairs_of(labels))
    for user, item in ((0, 0), (11, 8)):
        means = [
            (labels[nodes == node].sum() + DAMPING * labels.mean()) / ((nodes == node).sum() + DAMPING)
            for nodes, node in ((USERS, user), (ITEMS, item))
        ]
        expected = means[0] * means[1] / labels.mean()
        assert found(np.array([user]), np.array([item])) == pytest.approx([expected])


def test_boosting_does_not_see_a_pair_s_own_label() -> None:
    """Labels of coins: whoever saw its own would be right in training, and sure of it."""
    rng = np.random.default_rng(0)
    users, items = (x.ravel() for x in np.meshgrid(np.arange(40), np.arange(40), indexing="ij"))
    labels = rng.integers(0, 2, len(users)).astype(np.float64)
    predict = fit_boosting(LabelledPairs(users, items, labels, 40, 40, np.ones(len(labels))))
    assert abs(predict(users, items) - 0.5).mean() < 0.2


def test_rates_are_relative_to_exposures() -> None:
    labels, exposures = RNG.poisson(2, len(USERS)).astype(np.float64), RNG.integers(1, 9, len(USERS)).astype(np.float64)
    once = LabelledPairs(USERS, ITEMS, labels, 12, 9, exposures)
    twice = LabelledPairs(USERS, ITEMS, labels, 12, 9, 2 * exposures)
    found = fit_rates(once)(EVERYONE, EVERYTHING)
    np.testing.assert_allclose(found, 2 * fit_rates(twice)(EVERYONE, EVERYTHING))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in PAIR_BASELINES.items() for name in names])
def test_every_baseline_predicts_in_the_unit_of_its_labels(kind: str, name: str) -> None:
    labels = {"rating": RNG.integers(1, 6, len(USERS)), "click": RNG.integers(0, 2, len(USERS)),
              "count": RNG.poisson(2, len(USERS)), "own": RNG.normal(5, 1, len(USERS))}[kind]  # fmt: skip
    found = PAIR_BASELINES[kind][name](pairs_of(labels))(EVERYONE, EVERYTHING)
    assert found.shape == EVERYONE.shape
    assert np.isfinite(found).all()
    if kind != "rating":
        assert found.min() > 0
    if kind == "click":
        assert found.max() < 1
    if name == "mean":
        assert found == pytest.approx(np.full(len(found), labels.mean()))
