"""`RunProgress`: how far a run is. Draws are functions of (seed, epoch, step, …), so a resume needs no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunProgress:
    """step: updates made so far. history: epoch, step and metrics of each validation. best: the best of them, or
    empty. losses: the loss of every step, over all ranks."""

    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

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
        sign, since, reference = 1 if higher_is_better else -1, 0, None
        for validation in self.history:
            value = sign * validation[metric]
            if reference is None or value > reference + min_gain:
                reference, since = value, 0
            else:
                since += 1
        return since
