"""Losses against torch, scipy and closed forms; metrics against scikit-learn; labels out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    mean_poisson_deviance,
    mean_squared_error,
    roc_auc_score,
)
from torch.nn import functional

from dist_gat.config.task_sections import CountTask
from dist_gat.tasks.clicks import ClickLikelihood, auc_by_source, calibration_error
from dist_gat.tasks.counts import CountLikelihood
from dist_gat.tasks.ordinal import OrdinalLikelihood
from dist_gat.tasks.rating import HuberLikelihood, RatingLikelihood

VALUES = torch.linspace(-2, 2, 7, dtype=torch.float64)
SOURCES = np.repeat(np.arange(25), 8)


def random_labels(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """200 labels and values, float64."""
    rng = np.random.default_rng(3)
    labels = {
        "rating": rng.integers(1, 6, 200), "click": rng.integers(0, 2, 200), "count": rng.poisson(2.0, 200)
    }[kind].astype(np.float64)  # fmt: skip
    return labels, rng.normal(size=200)


def gradient_of(likelihood: Any, labels: torch.Tensor) -> torch.Tensor:
    values = VALUES.clone().requires_grad_()
    likelihood.loss(values, labels).sum().backward()
    assert values.grad is not None
    return values.grad


def test_the_losses_of_ratings_are_torchs() -> None:
    labels = torch.tensor([1.0, 5, 3, 2, 4, 1, 5], dtype=torch.float64)
    squared = RatingLikelihood(3.5, 1, 5)
    torch.testing.assert_close(squared.loss(VALUES, labels), (VALUES + 3.5 - labels) ** 2)
    torch.testing.assert_close(gradient_of(squared, labels), 2 * (VALUES + 3.5 - labels))
    huber = HuberLikelihood(3.5, 1, 5, clip=True, delta=0.7)
    expected = functional.huber_loss(VALUES + 3.5, labels, reduction="none", delta=0.7)
    torch.testing.assert_close(huber.loss(VALUES, labels), expected)


def test_the_loss_of_clicks_is_the_log_likelihood() -> None:
    labels = torch.tensor([0.0, 1, 1, 0, 1, 0, 1], dtype=torch.float64)
    clicks = ClickLikelihood()
    chance = 1 / (1 + np.exp(-VALUES.numpy()))
    expected = -stats.bernoulli.logpmf(labels.numpy().astype(int), chance)
    np.testing.assert_allclose(clicks.loss(VALUES, labels).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(gradient_of(clicks, labels).numpy(), chance - labels.numpy(), rtol=1e-12)


def test_the_losses_of_counts_are_log_likelihoods_to_a_constant() -> None:
    labels = torch.tensor([0.0, 1, 4, 2, 9, 0, 3], dtype=torch.float64)
    counts = labels.numpy().astype(int)
    poisson = CountLikelihood(CountTask(kind="count"), mean=2.0).double()
    means = 2.0 * np.exp(VALUES.numpy())
    constant = torch.lgamma(labels + 1).numpy()
    np.testing.assert_allclose(poisson.loss(VALUES, labels).numpy() + constant, -stats.poisson.logpmf(counts, means))
    np.testing.assert_allclose(gradient_of(poisson, labels).numpy(), means - counts, rtol=1e-10)
    negative = CountLikelihood(CountTask(kind="count", likelihood="negative_binomial"), mean=2.0).double()
    assert negative.log_shape is not None
    with torch.no_grad():
        negative.log_shape.fill_(np.log(1.7))
    expected = -stats.nbinom.logpmf(counts, 1.7, 1.7 / (1.7 + means))
    np.testing.assert_allclose(negative.loss(VALUES, labels).detach().numpy() + constant, expected, rtol=1e-10)
    assert torch.autograd.gradcheck(lambda x: negative.loss(x, labels), VALUES.clone().requires_grad_())
    negative.loss(VALUES, labels).sum().backward()
    assert negative.log_shape.grad is not None, "the dispersion is trained"


def test_metrics_are_those_of_scikit_learn() -> None:
    labels, values = random_labels("rating")
    rating = RatingLikelihood(3.0, 1, 5)
    predictions = rating.predict(values * 3)
    assert (predictions.min(), predictions.max()) == (1.0, 5.0)
    found = rating.metrics(labels, predictions, SOURCES)
    assert found["rmse"] == pytest.approx(mean_squared_error(labels, predictions) ** 0.5, abs=1e-9)
    assert found["mae"] == pytest.approx(mean_absolute_error(labels, predictions), abs=1e-9)

    labels, values = random_labels("click")
    clicks = ClickLikelihood()
    chance = clicks.predict(values)
    assert clicks.metrics(labels, chance, SOURCES) == pytest.approx(
        {
            "auc": roc_auc_score(labels, chance),
            "log_loss": log_loss(labels, chance),
            "auc_by_user": auc_by_loop(labels, chance, SOURCES),
            "average_precision": average_precision_score(labels, chance),
            "brier": brier_score_loss(labels, chance),
            "calibration_error": calibration_error(labels, chance),
        },
        abs=1e-9,
    )

    labels, values = random_labels("count")
    count = CountLikelihood(CountTask(kind="count"), mean=2.0)
    means = count.predict(values)
    found = count.metrics(labels, means, SOURCES)
    assert found["deviance"] == pytest.approx(mean_poisson_deviance(labels, means), abs=1e-9)


def auc_by_loop(labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> float:
    areas = []
    for source in np.unique(sources):
        mine = sources == source
        if 0 < labels[mine].mean() < 1:
            areas.append(roc_auc_score(labels[mine], predictions[mine]))
    return float(np.mean(areas)) if areas else float("nan")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40))
def test_auc_by_user_is_a_loop_over_users_also_with_ties(rows: list[tuple[int, int, int]]) -> None:
    sources, labels, predictions = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    found, expected = auc_by_source(labels, predictions, sources), auc_by_loop(labels, predictions, sources)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_calibration_error_is_a_loop_over_bins() -> None:
    labels, values = random_labels("click")
    chance = 1 / (1 + np.exp(-values))
    expected = 0.0
    for number in range(10):
        mine = np.minimum((chance * 10).astype(int), 9) == number
        if mine.any():
            expected += mine.mean() * abs(labels[mine].mean() - chance[mine].mean())
    assert calibration_error(labels, chance, 10) == pytest.approx(expected)
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0


@pytest.mark.parametrize(
    ("likelihood", "expected"),
    [
        (RatingLikelihood(3, 1, 5), [True, True, True, True, True]),
        (ClickLikelihood(), [False, True, False, True, False]),
        (CountLikelihood(CountTask(kind="count"), 1), [False, True, True, True, True]),
    ],
)
def test_what_can_be_a_label(likelihood: Any, expected: list[bool]) -> None:
    assert likelihood.are_labels(np.array([-1.0, 0, 0.5, 1, 2])).tolist() == expected


def test_ordinal_ratings_are_differences_of_cumulative_probabilities() -> None:
    levels, counts = [1.0, 2.5, 3.0, 5.0], [10, 40, 30, 20]
    ordinal = OrdinalLikelihood(levels, counts).double()
    thresholds = ordinal.thresholds().detach().numpy()
    values = VALUES.numpy()
    above = 1 / (1 + np.exp(thresholds - values[:, None]))
    chances = -np.diff(np.column_stack([np.ones(len(values)), above, np.zeros(len(values))]))
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    for number, level in enumerate(levels):
        loss = ordinal.loss(VALUES, torch.full_like(VALUES, level)).detach().numpy()
        np.testing.assert_allclose(loss, -np.log(chances[:, number]), rtol=1e-6)
    np.testing.assert_allclose(ordinal.predict(values), chances @ levels, rtol=1e-9)
    # a value of 0 gives the shares of the labels, but for one more of each
    np.testing.assert_allclose(chances[3], (np.array(counts) + 1) / 104, rtol=1e-6)
    labels = torch.tensor([1.0, 5, 3, 2.5, 1, 5, 3], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ordinal.loss(x, labels), VALUES.clone().requires_grad_())
    ordinal.loss(VALUES, labels).sum().backward()
    assert ordinal.gap_L.grad is not None, "the thresholds are trained"
    assert torch.isfinite(ordinal.gap_L.grad).all()


def test_a_level_without_training_rows_has_a_threshold_all_the_same() -> None:
    ordinal = OrdinalLikelihood([1, 2, 3], [5, 0, 5])
    assert (ordinal.thresholds().diff() > 0).all()


@pytest.mark.parametrize("kind", ["poisson", "negative_binomial"])
def test_zero_inflated_counts_are_a_mixture(kind: str) -> None:
    labels = torch.tensor([0.0, 1, 4, 0, 9, 0, 3], dtype=torch.float64)
    counts, means = labels.numpy().astype(int), 2.0 * np.exp(VALUES.numpy())
    inflated = CountLikelihood(CountTask(kind="count", likelihood=kind, zero_inflated=True), mean=2.0).double()
    assert inflated.inflation is not None
    share = 0.2
    with torch.no_grad():
        inflated.inflation.fill_(np.log(share / (1 - share)))
    plain = stats.poisson(means) if kind == "poisson" else stats.nbinom(1.0, 1.0 / (1.0 + means))
    expected = -np.log(share * (counts == 0) + (1 - share) * plain.pmf(counts))
    constant = torch.lgamma(labels + 1).numpy()
    np.testing.assert_allclose(inflated.loss(VALUES, labels).detach().numpy() + constant, expected, rtol=1e-9)
    np.testing.assert_allclose(inflated.predict(VALUES.numpy()), 0.8 * means, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda x: inflated.loss(x, labels), VALUES.clone().requires_grad_())
