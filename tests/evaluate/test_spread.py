"""Standard errors: of ranking against scipy, of pairs against the truth of a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dist_gat.evaluate.full_ranking import JudgedRanking
from dist_gat.evaluate.metrics import metric_names, user_metrics
from dist_gat.evaluate.pair_values import PairValues
from dist_gat.evaluate.spread import pair_spread, ranking_spread
from dist_gat.exchange.channel import Channel

KS = (1, 3)


def judged(num_users: int) -> list[JudgedRanking]:
    rng = np.random.default_rng(0)
    parts = []
    for part, users in enumerate(np.array_split(np.arange(num_users), 3)):
        hits = rng.random((len(users), 3)) < 0.4
        num_relevant = hits.sum(axis=1) + rng.integers(1, 4, len(users))
        parts.append(JudgedRanking(part, users, np.zeros(hits.shape, int), hits, num_relevant))
    return parts


def test_the_spread_of_a_ranking_is_the_standard_error_of_a_mean_over_users() -> None:
    parts = judged(40)
    found = ranking_spread(parts, 3, Channel("control"), KS)
    values = np.concatenate([user_metrics(part.hits, part.num_relevant, KS) for part in parts])
    assert list(found) == metric_names(KS)
    assert list(found.values()) == pytest.approx(stats.sem(values).tolist())


def test_one_user_has_no_spread() -> None:
    assert all(map(math.isnan, ranking_spread(judged(1), 3, Channel("control"), KS).values()))


def mae(labels: np.ndarray, predictions: np.ndarray, sources: np.ndarray) -> dict[str, float]:
    return {"mae": float(np.abs(labels - predictions).mean())}


def test_the_spread_of_pairs_is_about_what_new_users_do() -> None:
    """Users differ, and the pairs of one are alike: a standard error over pairs would be far too small."""
    rng = np.random.default_rng(1)

    def draw() -> PairValues:
        users = np.repeat(rng.integers(0, 2**40, 400), 20)
        off = np.repeat(rng.exponential(size=400), 20)
        return PairValues(np.stack([users, users], axis=1), off, np.zeros(len(users)))

    draws = [draw() for _ in range(30)]
    truth = np.std([mae(d.labels, d.values, d.pairs[:, 0])["mae"] for d in draws])
    found = np.mean([pair_spread(d, mae)["mae"] for d in draws])
    assert found == pytest.approx(truth, rel=0.4)
    assert found > 3 * stats.sem(draws[0].labels)


def test_what_one_group_alone_has_is_undefined() -> None:
    pairs = PairValues(np.zeros((5, 2), np.int64), np.arange(5.0), np.zeros(5))
    assert math.isnan(pair_spread(pairs, mae)["mae"])
