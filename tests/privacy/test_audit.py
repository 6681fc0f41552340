"""The attack on private runs, small: it finds less than was promised, and plenty where the noise was taken out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.privacy_audit import bound_of, lower_bound, scores_of

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
