"""`RunProgress`: how far a run is. Draws are functions of (seed, epoch, step, …), so a resume needs no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any


@dataclass
class RunProgress:
    """step: updates made so far. history: epoch, step and metrics of each validation. best: the best of them, or
    empty. losses: the loss of every step, over all ranks. base: the fingerprint of the model that the run began with.
    """

    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    base: str | None = None

    def validated(self, metrics: dict[str, Any], metric: str, higher_is_better: bool) -> bool:
        """Record a validation; returns whether it is the best so far."""
        self.history.append(metrics)
        sign = 1 if higher_is_better else -1
        better = not self.best or sign * metrics[metric] > sign * self.best[metric]
        if better:
            self.best = metrics
        return better

    def validations_without_gain(self, metric: str, higher_is_better: bool, min_gain: float = 0.0) -> int:
        """How many validations ago the metric last became better by more than `min_gain` than when it last did so."""
        sign = 1 if higher_is_better else -1
        return without_gain([sign * validation[metric] for validation in self.history], min_gain)

    def epochs_without_gain(self, steps_per_epoch: int, min_gain: float) -> int:
        """The same of whole epochs and their mean loss, the smaller the better."""
        num_epochs = len(self.losses) // steps_per_epoch
        epochs = (self.losses[steps_per_epoch * epoch :][:steps_per_epoch] for epoch in range(num_epochs))
        return without_gain([-mean(losses) for losses in epochs], min_gain)


def without_gain(values: Sequence[float], min_gain: float) -> int:
    """How many values have come since one was larger by more than `min_gain` than the last of which that is true."""
    since, reference = 0, None
    for value in values:
        if reference is None or value > reference + min_gain:
            reference, since = value, 0
        else:
            since += 1
    return since
