"""The attack on private runs, small: it finds less than was promised, and plenty where the noise was taken out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from benchmarks.privacy_audit import bound_of, lower_bound, scores_of
from dist_gat.config.privacy_section import PrivacyConfig, PrivateStartConfig
from dist_gat.privacy.accountant import plan_privacy
from dist_gat.train.private_start import noisy_counts, noisy_pairs

DELTA = 1e-3


def test_the_bound_is_below_the_truth_and_finds_what_is_plain() -> None:
    rng = np.random.default_rng(0)
    same = lower_bound(rng.normal(size=400), rng.normal(size=400), DELTA)
    apart = lower_bound(rng.normal(size=1000) + 9, rng.normal(size=1000), DELTA)
    assert same < 0.5
    assert apart > 5


@pytest.mark.parametrize(("right", "wrong", "bound"), [(100, 0, 3.28), (50, 50, 0.0), (0, 0, 0.0), (90, 10, 1.54)])
def test_both_shares_are_bounded(right: int, wrong: int, bound: float) -> None:
    assert bound_of(right, 100, wrong, 100, DELTA) == pytest.approx(bound, abs=0.02)


def test_an_attack_fails_on_a_private_run_and_succeeds_without_noise(tmp_path: Path) -> None:
    private = lower_bound(*scores_of(tmp_path / "private", 1.0, 40), DELTA)
    broken = lower_bound(*scores_of(tmp_path / "broken", 1.0, 40, noisy=False), DELTA)
    assert private <= 1.0
    # 30 right guesses of each kind can't show more than 2.1
    assert broken > 1.5


def start_scores(epsilon: float, trials: int, noisy: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """With and without one user, of whom the attacker knows all: the likelihood ratio of both sums together."""
    start = PrivateStartConfig(counts=0.5, pairs=0.5)
    plan = plan_privacy(
        PrivacyConfig(epsilon=epsilon, delta=DELTA, num_users=100, public_items=True, start=start), 100, 0
    )
    met = np.random.default_rng(0).random((30, 12)) < 0.5
    met[0] = True
    found: list[list[float]] = []
    for with_user in (True, False):
        met_UI = csr_array(met[0 if with_user else 1 :].astype(np.int64))
        scores = []
        for trial in range(trials):
            keys = [np.random.default_rng([with_user, number, trial]).bytes(32) for number in range(2)]
            noises = [plan.counts_noise if noisy else 0.0, plan.pairs_noise if noisy else 0.0]
            counts = noisy_counts(met_UI, noises[0], keys[0], lambda values: values)
            pairs = noisy_pairs(met_UI, noises[1], keys[1], lambda values: values)
            # what the user adds is alike in all numbers
            scores.append(
                counts.sum() / np.sqrt(12) / plan.counts_noise**2
                + np.triu(pairs, 1).sum() * 2 / 12 / plan.pairs_noise**2
            )
        found.append(scores)
    return np.array(found[0]), np.array(found[1])


def test_the_best_attack_on_what_a_run_begins_with_stays_below_the_promise() -> None:
    private = lower_bound(*start_scores(2.0, 1200), DELTA)
    assert 0.3 < private <= 2.0
    assert lower_bound(*start_scores(2.0, 1200, noisy=False), DELTA) > 5
