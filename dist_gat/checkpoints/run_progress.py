"""`Cursor`: how far a run is. Randomness is a function of (seed, epoch, step, …), so this is all a resume needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cursor:
    """step: updates made so far. history: epoch, step and metrics of each validation. best: the best of them, or
    empty. losses: the loss of every step, over all ranks."""

    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def validated(self, metrics: dict[str, Any], metric: str) -> bool:
        """Take in a validation; returns whether it is the best so far."""
        self.history.append(metrics)
        better = not self.best or metrics[metric] > self.best[metric]
        if better:
            self.best = metrics
        return better

    @property
    def validations_since_best(self) -> int:
        return len(self.history) - 1 - self.history.index(self.best) if self.history else 0
