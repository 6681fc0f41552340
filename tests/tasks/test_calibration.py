"""Calibration on values that are known to be too bold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from dist_gat.tasks.calibration import calibrate, fit_calibration
from dist_gat.tasks.clicks import calibration_error

RNG = np.random.default_rng(0)
LOG_ODDS = RNG.normal(size=20_000)
LABELS = (RNG.random(20_000) < expit(LOG_ODDS)).astype(np.float64)


def test_temperature_finds_the_factor_that_values_are_too_large_by() -> None:
    fitted = fit_calibration("temperature", 2.5 * LOG_ODDS, LABELS)
    assert fitted["temperature"] == pytest.approx(2.5, rel=0.05)
    np.testing.assert_allclose(calibrate(2.5 * LOG_ODDS, fitted), expit(2.5 * LOG_ODDS / fitted["temperature"]))


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_calibrated_probabilities_are_better_and_keep_their_order(kind: str) -> None:
    values = 3 * LOG_ODDS
    fitted = json.loads(json.dumps(fit_calibration(kind, values, LABELS)))  # type: ignore[arg-type]
    before, after = expit(values), calibrate(values, fitted)
    assert calibration_error(LABELS, after) < 0.02 < calibration_error(LABELS, before)
    assert log_loss(LABELS, after.clip(1e-9, 1 - 1e-9)) < log_loss(LABELS, before)
    assert (np.diff(after[np.argsort(values)]) >= 0).all()


def test_nothing_to_learn_leaves_probabilities_as_they_are() -> None:
    for kind, labels in (("none", LABELS), ("temperature", np.ones(5)), ("isotonic", np.zeros(5))):
        fitted = fit_calibration(kind, LOG_ODDS[: len(labels)], labels)  # type: ignore[arg-type]
        assert fitted == {"kind": "none"}
    np.testing.assert_array_equal(calibrate(LOG_ODDS, {"kind": "none"}), expit(LOG_ODDS))
