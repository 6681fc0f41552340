"""The seeds of tasks that predict a label of given pairs.

Shape legend: B pairs of this rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.sampling.block import to_device
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.seeds import StepPairs


@dataclass(frozen=True)
class LabelledSeeds:
    """source_at_B, target_at_B: int64 positions among the seed nodes. label_B: float32."""

    source_at_B: Tensor
    target_at_B: Tensor
    label_B: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelledSeeds:
        return to_device(self, device, non_blocking)


@dataclass(frozen=True)
class LabelledSource:
    """The training pairs of a relation with their labels, in the order of the epoch."""

    step_pairs: StepPairs

    @property
    def steps_per_epoch(self) -> int:
        return self.step_pairs.steps_per_epoch

    def draw(self, epoch: int, step: int) -> DrawnLabels:
        pairs, rank_of_pair = self.step_pairs.pairs(epoch, step)
        own = rank_of_pair == self.step_pairs.store.channel.rank
        return DrawnLabels(pairs, pairs[own], self.step_pairs.labels(epoch, step)[own])


@dataclass(frozen=True)
class DrawnLabels:
    """pairs: int64 [n, 2], of all ranks. own: int64 [B, 2], this rank's. labels: float32 [B]."""

    pairs: np.ndarray
    own: np.ndarray
    labels: np.ndarray

    @property
    def num_global(self) -> int:
        return len(self.pairs)

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        return self.own[:, 0].copy(), self.own[:, 1].copy()

    def place(self, at: Sequence[Tensor], relabeller: Relabeller, degree_S: np.ndarray | None) -> LabelledSeeds:
        source_at, target_at = at
        return LabelledSeeds(source_at, target_at, torch.from_numpy(self.labels))
