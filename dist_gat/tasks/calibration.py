"""Calibration: probabilities that are as often right as they say, by a map fitted on validation.

Shape legend: m pairs.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

# of log T
BOUNDS = (-4.0, 4.0)


def fit_calibration(
    kind: Literal["none", "temperature", "isotonic"], values: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Plain numbers for `calibrate`, from float64 [m] values (log-odds) and labels of 0 and 1.

    temperature: P = sigmoid(value / T), with the T of the least log-loss (Guo et al., ICML 2017). isotonic: the best
    rising step function, straight between its steps (Zadrozny and Elkan, KDD 2002).
    """
    if kind == "none" or not 0 < labels.mean() < 1:
        return {"kind": "none"}
    if kind == "temperature":

        def loss(log_temperature: float) -> float:
            scaled = values * np.exp(-log_temperature)
            return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

        return {"kind": "temperature", "temperature": float(np.exp(minimize_scalar(loss, bounds=BOUNDS).x))}
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, labels)
    return {"kind": "isotonic", "values": fitted.X_thresholds_.tolist(), "probabilities": fitted.y_thresholds_.tolist()}


def calibrate(values: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
    """Probabilities, float64 of the shape of the values."""
    if calibration["kind"] == "temperature":
        return expit(values / calibration["temperature"])
    if calibration["kind"] == "isotonic":
        return np.interp(values, calibration["values"], calibration["probabilities"])
    return expit(values)
