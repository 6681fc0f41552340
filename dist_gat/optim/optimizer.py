"""Two standard optimisers: Adam for the dense weights, SparseAdam (as `RowAdam`) for this rank's embedding rows.

SparseAdam touches only rows that have a gradient in the step; its work grows with the table by only a bit a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_gat.config.sections import TrainConfig
from dist_gat.nn.recommender import Recommender
from dist_gat.optim.row_adam import MOMENTS, RowAdam, new_moments
from dist_gat.optim.row_gradient import merge_rows, square_sum


@dataclass(frozen=True)
class Optimizers:
    """dense is None where the model trains no dense weights (LightGCN, for one)."""

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
            for group in self.dense.param_groups:
                group["lr"] = group["rate"] * factor
        return rate

    def zero_grad(self) -> None:
        self.rows.zero_grad()
        if self.dense is not None:
            self.dense.zero_grad()

    def step(self) -> None:
        self.rows.step()
        if self.dense is not None:
            self.dense.step()

    def row_moments(self, model: Recommender) -> dict[str, Tensor]:
        """SparseAdam's `exp_avg` and `exp_avg_sq`, [O, E] like the embedding rows; zeros before the first step. None of
        frozen rows."""
        if not model.table.weight.requires_grad:
            return {}
        state = self.rows.state.get(model.table.weight, {})
        return {name: state[name] for name in MOMENTS} if state else new_moments(model.table.weight)

    def row_steps(self, model: Recommender) -> int:
        return int(self.rows.state.get(model.table.weight, {}).get("step", 0))

    def start_rows(self, model: Recommender, steps: int) -> dict[str, Tensor]:
        """Create SparseAdam's state after `steps` steps, and return its moments, which the caller fills in place. There
        are none of frozen rows."""
        if not model.table.weight.requires_grad:
            return {}
        moments = new_moments(model.table.weight)
        self.rows.state[model.table.weight] = {"step": steps, **moments}
        return moments


def build_optimizers(model: Recommender, config: TrainConfig, total_steps: int) -> Optimizers:
    """Each group of dense weights has a `rate`, which the schedule changes: that of a text encoder is its own."""
    text = model.dense.text
    of_text = set() if text is None else set(text.parameters())
    rate = config.dense_learning_rate or config.learning_rate
    trained = [parameter for parameter in model.dense.parameters() if parameter.requires_grad]
    groups = [{"params": [one for one in trained if one not in of_text], "rate": rate}]
    if text is not None:
        own = [one for one in trained if one in of_text]
        groups.append({"params": own, "rate": text.tower.config.learning_rate})
    return Optimizers(
        RowAdam([model.table.weight], lr=config.learning_rate),
        torch.optim.Adam(groups, lr=rate) if trained else None,
        config,
        total_steps,
    )


def dense_parameters(optimizer: torch.optim.Adam) -> list[Tensor]:
    """Of all groups, in their order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


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
def gradient_squares(model: Recommender) -> tuple[Tensor, Tensor]:
    """Sums of squares in float64: of this rank's embedding gradient, and of the dense ones, alike on every rank."""
    rows = model.table.weight.grad
    if rows is not None:
        rows = model.table.weight.grad = merge_rows(rows)
    zero = torch.zeros((), dtype=torch.float64, device=model.table.weight.device)
    dense = [p.grad.double().square().sum() for p in model.dense.parameters() if p.grad is not None]
    return zero if rows is None else square_sum(rows.values()), sum(dense, zero)
