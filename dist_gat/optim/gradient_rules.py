"""`GradientRule`: what is done to the gradients between the backward pass and the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from dist_gat.config.sections import TrainConfig
from dist_gat.nn.recommender import Recommender


class GradientRule(Protocol):
    """Every rank applies the same rules, in the same order."""

    def apply(self, model: Recommender, norm: float, step: int) -> None:
        """Change the gradients in place. norm: of all of them over all ranks, before any rule. step: updates so far."""


@dataclass(frozen=True)
class Clipping:
    """Scales all gradients to a global norm of at most `most`."""

    most: float

    @torch.no_grad()
    def apply(self, model: Recommender, norm: float, step: int) -> None:
        if norm <= self.most:
            return
        scale = self.most / norm
        for parameter in model.dense.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        if model.table.weight.grad is not None:
            model.table.weight.grad.values().mul_(scale)


def build_gradient_rules(config: TrainConfig) -> list[GradientRule]:
    return [] if config.clip_norm is None else [Clipping(config.clip_norm)]
