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

from dist_gat.config.task_sections import ClickTask, CountTask, RatingTask
from dist_gat.tasks.clicks import ClickLikelihood, auc_by_source, calibration_error
from dist_gat.tasks.counts import CountLikelihood
from dist_gat.tasks.rating import RatingLikelihood

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
    squared = RatingLikelihood(RatingTask(kind="rating"), 3.5, 1, 5)
    torch.testing.assert_close(squared.loss(VALUES, labels), (VALUES + 3.5 - labels) ** 2)
    torch.testing.assert_close(gradient_of(squared, labels), 2 * (VALUES + 3.5 - labels))
    huber = RatingLikelihood(RatingTask(kind="rating", loss="huber", huber_delta=0.7), 3.5, 1, 5)
    expected = functional.huber_loss(VALUES + 3.5, labels, reduction="none", delta=0.7)
    torch.testing.assert_close(huber.loss(VALUES, labels), expected)


def test_the_loss_of_clicks_is_the_log_likelihood() -> None:
    labels = torch.tensor([0.0, 1, 1, 0, 1, 0, 1], dtype=torch.float64)
    clicks = ClickLikelihood(ClickTask(kind="click"))
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
    rating = RatingLikelihood(RatingTask(kind="rating"), 3.0, 1, 5)
    predictions = rating.predict(values * 3)
    assert (predictions.min(), predictions.max()) == (1.0, 5.0)
    found = rating.metrics(labels, predictions, SOURCES)
    assert found["rmse"] == pytest.approx(mean_squared_error(labels, predictions) ** 0.5, abs=1e-9)
    assert found["mae"] == pytest.approx(mean_absolute_error(labels, predictions), abs=1e-9)

    labels, values = random_labels("click")
    clicks = ClickLikelihood(ClickTask(kind="click"))
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
    ("likelihood", "labels", "words"),
    [
        (RatingLikelihood(RatingTask(kind="rating"), 3, 3, 3), (3, 3), "all ratings are 3"),
        (ClickLikelihood(ClickTask(kind="click")), (0, 2), "labels of clicks are 0 and 1, and these go from 0 to 2"),
        (ClickLikelihood(ClickTask(kind="click")), (1, 1), "labels of clicks are 0 and 1"),
        (CountLikelihood(CountTask(kind="count"), 1), (-1, 4), "a count is 0 or more"),
        (CountLikelihood(CountTask(kind="count"), 1), (0, 0), "all counts are 0"),
    ],
)
def test_labels_of_another_kind_are_refused(likelihood: Any, labels: tuple[float, float], words: str) -> None:
    wrong = likelihood.check(*map(float, labels))
    assert wrong is not None
    assert words in wrong


def test_labels_of_the_kind_are_not() -> None:
    assert RatingLikelihood(RatingTask(kind="rating"), 3, 1, 5).check(1, 5) is None
    assert ClickLikelihood(ClickTask(kind="click")).check(0, 1) is None
    assert CountLikelihood(CountTask(kind="count"), 2).check(0, 9) is None
