"""The budget against closed forms, and against the library's other accountant."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from dist_gat.base.errors import ConfigError
from dist_gat.config.privacy_section import PrivacyConfig, PrivateStartConfig
from dist_gat.privacy.accountant import PrivacyPlan, Spending, plan_privacy, spent, spent_rdp


def gaussian_delta(epsilon: float, noise: float) -> float:
    """δ of one Gaussian mechanism (Balle and Wang 2018, theorem 8)."""
    upper, lower = (norm.cdf(sign * 0.5 / noise - epsilon * noise) for sign in (1, -1))
    return float(upper - math.exp(epsilon) * lower)


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 9), (5.0, 100)])
def test_without_sampling_the_budget_is_the_closed_form(noise, steps):
    delta = 1e-4
    epsilon = spent([Spending(1.0, noise, steps)], delta)
    # steps of a Gaussian compose to one with less noise
    assert gaussian_delta(epsilon, noise / math.sqrt(steps)) <= delta
    assert gaussian_delta(epsilon - 0.02, noise / math.sqrt(steps)) > delta


def test_one_sampled_step_is_the_closed_form():
    """Of a mixture (1 - q) N(0, σ²) + q N(1, σ²) against N(0, σ²), by the worse of both orders."""
    rate, noise, delta = 0.3, 1.0, 1e-3
    epsilon = spent([Spending(rate, noise, 1)], delta)
    # removing: δ = q δ_gauss(log(1 + (e^ε - 1) / q)), Balle, Barthe and Gaboardi 2018
    amplified = math.log1p(math.expm1(epsilon) / rate)
    assert rate * gaussian_delta(amplified, noise) == pytest.approx(delta, rel=0.02)


def test_the_noise_of_a_plan_spends_the_budget_and_no_more():
    privacy = PrivacyConfig(epsilon=2, num_users=1000, public_items=True)
    plan = plan_privacy(privacy, 100, 50)
    own = plan.after(50)
    assert plan.delta == pytest.approx(1000**-1.1)
    assert plan.sampling_rate == 0.1
    assert 1.99 < spent([own], plan.delta) <= 2 < spent_rdp([own], plan.delta) == plan.rdp_epsilon < 2.6
    assert spent([plan.after(25)], plan.delta) < 2
    assert spent([plan.after(0)], plan.delta) == 0
    # more steps than planned are not taken
    assert plan.after(1000) == own


def test_a_budget_that_no_noise_spends_is_refused():
    privacy = PrivacyConfig(epsilon=1e6, num_users=1000, public_items=True)
    with pytest.raises(ConfigError, match=r"privacy\.epsilon=1000000.* no noise of at least"):
        plan_privacy(privacy, 100, 5)


def test_a_run_more_is_counted():
    plan = PrivacyPlan(2.0, 1e-3, 1.0, 0.1, 50, 1.5, 0.0)
    once, twice = spent([plan.after(50)], 1e-3), spent([plan.after(50), plan.after(50)], 1e-3)
    assert once < twice <= 2 * once
    assert twice == pytest.approx(spent([Spending(0.1, 1.5, 100)], 1e-3), abs=1e-2)


def test_what_a_run_begins_with_composes_with_its_steps():
    """A start alone is one Gaussian of which 1 / noise² adds up; with steps all together stay within the budget."""
    start = PrivateStartConfig(counts=0.25, pairs=0.75)
    privacy = PrivacyConfig(epsilon=4, num_users=1000, public_items=True, start=start)
    plan = plan_privacy(privacy, 1000, 0)
    both = 1 / math.hypot(1 / plan.counts_noise, 1 / plan.pairs_noise)
    assert gaussian_delta(4.0, both) <= plan.delta
    assert gaussian_delta(3.97, both) > plan.delta
    assert plan.counts_noise == pytest.approx(math.sqrt(3) * plan.pairs_noise, rel=1e-3)
    assert plan.noise_multiplier == 0
    assert spent([plan.after(0)], plan.delta) <= 4 < plan.rdp_epsilon
    steps = plan_privacy(privacy.model_copy(update={"start": PrivateStartConfig(counts=0.1, pairs=0.4)}), 1000, 20)
    all_of = 1 / math.hypot(1 / steps.counts_noise, 1 / steps.pairs_noise, math.sqrt(20) / steps.noise_multiplier)
    assert gaussian_delta(4.0, all_of) <= plan.delta
    assert gaussian_delta(3.95, all_of) > plan.delta
    # what was published before the first step is spent without any
    assert 0 < spent([steps.after(0)], plan.delta) < spent([steps.after(5)], plan.delta) < 4
