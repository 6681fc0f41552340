"""Two standard optimisers: Adam for the dense weights, SparseAdam (as `RowAdam`) for this rank's embedding rows.

It touches only rows that have a gradient in the step, so its work does not grow with the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_gat.config import TrainConfig
from dist_gat.exchange.channel import Channel
from dist_gat.nn.recommender import Recommender
from dist_gat.train.row_adam import RowAdam, merge_rows


@dataclass(frozen=True)
class Optimizers:
    """dense is None where the model has no dense weights (LightGCN, for one)."""

    rows: RowAdam
    dense: torch.optim.Adam | None
    config: TrainConfig
    total_steps: int

    def set_learning_rate(self, step: int) -> float:
        """Set the rates of the given global step; returns that of the embedding rows."""
        factor = schedule_factor(self.config, step, self.total_steps)
        rate = self.config.learning_rate * factor
        self.rows.param_groups[0]["lr"] = rate
        if self.dense is not None:
            self.dense.param_groups[0]["lr"] = (self.config.dense_learning_rate or self.config.learning_rate) * factor
        return rate

    def zero_grad(self) -> None:
        self.rows.zero_grad()
        if self.dense is not None:
            self.dense.zero_grad()

    def step(self) -> None:
        self.rows.step()
        if self.dense is not None:
            self.dense.step()


def build_optimizers(model: Recommender, config: TrainConfig, total_steps: int) -> Optimizers:
    dense = list(model.dense.parameters())
    return Optimizers(
        RowAdam([model.table.weight], lr=config.learning_rate),
        torch.optim.Adam(dense, lr=config.dense_learning_rate or config.learning_rate) if dense else None,
        config,
        total_steps,
    )


def schedule_factor(config: TrainConfig, step: int, total_steps: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, then constant, linear or cosine decay to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    if config.schedule == "linear":
        return 1.0 - progress
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


@torch.no_grad()
def clip_gradients(model: Recommender, channel: Channel, clip_norm: float | None) -> float:
    """Scale all gradients to a global norm of at most `clip_norm`; returns the norm before. Collective.

    Dense gradients are the same on every rank, embedding gradients are each with their owner.
    """
    rows = model.table.weight.grad
    if rows is not None:
        rows = model.table.weight.grad = merge_rows(rows)
    squares = _square(None if rows is None else rows.values(), channel)
    total = channel.sum(squares)
    dense = [p.grad for p in model.dense.parameters() if p.grad is not None]
    for gradient in dense:
        total = total + _square(gradient, channel)
    norm = float(total.sqrt())
    if clip_norm is not None and norm > clip_norm:
        scale = clip_norm / norm
        for gradient in dense:
            gradient.mul_(scale)
        if rows is not None:
            rows.values().mul_(scale)
    return norm


def _square(gradient: Tensor | None, channel: Channel) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=channel.device)
    return zero if gradient is None else gradient.double().square().sum()
