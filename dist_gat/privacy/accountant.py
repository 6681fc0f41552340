"""How much noise a promise takes, and what a number of steps has spent of it.

A step draws each user with the same probability, sums gradients that are cut to a norm C and adds Gaussian noise of
standard deviation σ C: the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016; Mironov et al. 2019), σ being the
noise multiplier. Steps compose. The budget is that of dp-accounting's privacy loss distributions (Doroshenko et al.
2022), for data sets that differ in one user who is there or not; Rényi divergences give a second, looser bound.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from dist_gat.base.errors import ConfigError, first_line
from dist_gat.base.extra import missing
from dist_gat.config.privacy_section import PrivacyConfig

LEAST, GUESS = 0.2, 1.0  # noise multipliers from which the right one is looked for
TOLERANCE = 1e-4
# privacy losses are rounded up to multiples of this, which costs a thousandth of the noise or less
ROUNDING = 1e-3


@dataclass(frozen=True)
class Spending:
    """So many steps of one run: what the accountant reads."""

    sampling_rate: float
    noise_multiplier: float
    steps: int


@dataclass(frozen=True)
class PrivacyPlan:
    """What a run may spend, found before its first step.

    epsilon, delta: the promise. sampling_rate: how likely a step draws a user. steps: of the whole run.
    noise_multiplier: standard deviation of the noise over `clip`. rdp_epsilon: the looser bound for the same noise.
    """

    epsilon: float
    delta: float
    clip: float
    sampling_rate: float
    steps: int
    noise_multiplier: float
    rdp_epsilon: float

    def after(self, steps: int) -> Spending:
        return Spending(self.sampling_rate, self.noise_multiplier, min(steps, self.steps))

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def sampling_rate_of(privacy: PrivacyConfig, batch_size: int) -> float:
    """How likely a step draws a user. batch_size: users of a step, as expected."""
    return min(1.0, batch_size / privacy.num_users)


def plan_privacy(privacy: PrivacyConfig, batch_size: int, steps: int) -> PrivacyPlan:
    """The least noise with which `steps` steps keep the promise. Raises `ConfigError` where no noise does."""
    accounting = _library()
    rate, delta = sampling_rate_of(privacy, batch_size), privacy.delta_value

    def event(noise: float) -> Any:
        return _event([Spending(rate, noise, max(steps, 1))])

    with _quiet():
        try:
            # the looser bound is quick, and the tight one lies below it
            enough = accounting.calibrate_dp_mechanism(
                accounting.rdp.RdpAccountant, event, privacy.epsilon, delta,
                accounting.LowerEndpointAndGuess(LEAST, GUESS), tol=TOLERANCE,
            )  # fmt: skip
            noise = accounting.calibrate_dp_mechanism(
                _pld, event, privacy.epsilon, delta, accounting.ExplicitBracketInterval(enough / 2, enough * 1.01),
                tol=TOLERANCE,
            )  # fmt: skip
        except (ValueError, accounting.mechanism_calibration.NoBracketIntervalFoundError) as err:
            raise ConfigError(
                f"privacy.epsilon={privacy.epsilon}, delta={delta:g}: no noise of at least {LEAST} times clip is found "
                f"that spends just this in {steps} steps: {first_line(err)}; ask for less, or take other epochs"
            ) from None
    spending = Spending(rate, float(noise), max(steps, 1))
    # the search ends close to the budget, on either side of it
    while spent([spending], delta) > privacy.epsilon:
        spending = replace(spending, noise_multiplier=spending.noise_multiplier + TOLERANCE)
    return PrivacyPlan(
        privacy.epsilon, delta, privacy.clip, rate, steps, spending.noise_multiplier, spent_rdp([spending], delta)
    )  # fmt: skip


def spent(spendings: Sequence[Spending], delta: float) -> float:
    """ε of several runs on the same users, one after the other; 0 of no steps."""
    return _epsilon(_pld(), spendings, delta)


def spent_rdp(spendings: Sequence[Spending], delta: float) -> float:
    """The same by Rényi divergences."""
    return _epsilon(_library().rdp.RdpAccountant(), spendings, delta)


def _pld() -> Any:
    """Of data sets with a user more or less, which is its default."""
    return _library().pld.PLDAccountant(value_discretization_interval=ROUNDING)


def _epsilon(accountant: Any, spendings: Sequence[Spending], delta: float) -> float:
    if not any(one.steps for one in spendings):
        return 0.0
    with _quiet():
        return float(accountant.compose(_event(spendings)).get_epsilon(delta))


def _event(spendings: Sequence[Spending]) -> Any:
    accounting = _library()
    events = [
        accounting.SelfComposedDpEvent(
            accounting.PoissonSampledDpEvent(one.sampling_rate, accounting.GaussianDpEvent(one.noise_multiplier)),
            one.steps,
        )
        for one in spendings
        if one.steps
    ]
    return accounting.ComposedDpEvent(events)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings of orders that it leaves out, which only loosen the check."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError:
        raise missing("dp-accounting", "privacy", "privacy") from None
    return dp_accounting
