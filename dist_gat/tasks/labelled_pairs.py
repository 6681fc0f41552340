"""The pairs that a task predicts, with their labels: of a step of training, and of a split.

Shape legend: B pairs of this rank, m pairs of a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.full_ranking import SEEN_BEFORE
from dist_gat.evaluate.pair_values import PartPairs
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.movable import Movable
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.seeds import SeedPairs, StepPairs
from dist_gat.tasks.pair_negatives import PairNegatives


@dataclass(frozen=True)
class LabelledRelation:
    """What is known of the pairs of a relation, as one task sees them.

    label: its name. exposure: the label whose log is added to values, or None. negatives: then every pair of the
    relation is a 1, and the drawn ones are 0.
    """

    prepared: PreparedGraph
    relation: Relation
    label: str
    exposure: str | None = None
    negatives: PairNegatives | None = None

    def of_parts(self, numbers: Sequence[int], split: str) -> list[PartPairs]:
        """Of each of some parts, the pairs of a split whose sources it has, and its share of the negatives behind
        them."""
        if self.negatives is None:
            return [self._given(number, split) for number in numbers]
        drawn = self.negatives.of_split(split)
        part_of = self.prepared.ranges.part_of(drawn[:, 0])
        return [self._with_negatives(self.negatives, number, split, drawn[part_of == number]) for number in numbers]

    def _given(self, number: int, split: str) -> PartPairs:
        part = self.prepared.parts[number]
        pairs, labels = part.pairs(self.relation, split), part.labels(self.relation, split, self.label)
        if self.exposure is None:
            return PartPairs(np.asarray(pairs), np.asarray(labels))
        exposure = part.labels(self.relation, split, self.exposure)
        return PartPairs(np.asarray(pairs), np.asarray(labels), np.log(exposure))

    def _with_negatives(self, negatives: PairNegatives, number: int, split: str, drawn: np.ndarray) -> PartPairs:
        pairs = np.asarray(self.prepared.parts[number].pairs(self.relation, split))
        drawn = negatives.without_hits(drawn, number, [*SEEN_BEFORE[split], split])
        return PartPairs(np.concatenate([pairs, drawn]), ones_and_zeros(len(pairs), len(drawn)))


def ones_and_zeros(num_ones: int, num_zeros: int) -> np.ndarray:
    """float32: labels of interactions, and of negatives behind them."""
    return np.repeat(np.array([1, 0], np.float32), [num_ones, num_zeros])


@dataclass(frozen=True)
class LabelledSeeds(Movable):
    """source_at_B, target_at_B: int64 positions among the seed nodes. label_B: float32.

    offset_B: float32, what is added to values, or None.
    """

    source_at_B: Tensor
    target_at_B: Tensor
    label_B: Tensor
    offset_B: Tensor | None


@dataclass(frozen=True)
class LabelledSource:
    """A `SeedSource`: the training pairs in the order of the epoch, with their labels."""

    step_pairs: StepPairs
    labelled: LabelledRelation

    @property
    def steps_per_epoch(self) -> int:
        return self.step_pairs.steps_per_epoch

    @property
    def store(self) -> GraphStore:
        return self.step_pairs.store

    def draw(self, epoch: int, step: int) -> DrawnLabels:
        numbers, rank_of_pair = self.step_pairs.draw(epoch, step)
        pairs, is_own = self.step_pairs.pairs(numbers), rank_of_pair == self.store.channel.rank
        own, mine = pairs.nodes[is_own], numbers[is_own]
        predicted = {self.labelled.relation.name: pairs}
        negatives, exposure = self.labelled.negatives, self.labelled.exposure
        offsets = None if exposure is None else np.log(self._own_labels(exposure, mine))
        if negatives is None:
            return DrawnLabels(predicted, own, self._own_labels(self.labelled.label, mine), offsets, len(numbers))
        drawn = self._own_negatives(negatives, epoch, step, len(numbers))
        labels = ones_and_zeros(len(own), len(drawn))
        num_global = len(numbers) * (1 + negatives.per_pair)
        return DrawnLabels(predicted, np.concatenate([own, drawn]), labels, offsets, num_global)

    def _own_labels(self, label: str, numbers: np.ndarray) -> np.ndarray:
        return self.store.own_labels(self.labelled.relation, "train", label, numbers)

    def _own_negatives(self, negatives: PairNegatives, epoch: int, step: int, num_pairs: int) -> np.ndarray:
        drawn = negatives.of_step(epoch, step, num_pairs)
        part_of = self.store.ranges.part_of(drawn[:, 0])
        of_parts = [negatives.without_hits(drawn[part_of == part], part, ("train",)) for part in self.store.own_parts]
        return np.concatenate(of_parts)


@dataclass(frozen=True)
class DrawnLabels:
    """predicted: the interactions of the step on all ranks. own: int64 [B, 2], this rank's, with negatives.

    labels: float32 [B]. offsets: float32 [B] or None. num_global: pairs over all ranks and all draws of negatives, also
    those that happened and were dropped.
    """

    predicted: Mapping[str, SeedPairs]
    own: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray | None
    num_global: int

    @property
    def times(self) -> tuple[None, None]:
        """None: pairs are predicted whenever they were."""
        return None, None

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        return np.ascontiguousarray(self.own[:, 0]), np.ascontiguousarray(self.own[:, 1])

    def place(self, at: Sequence[Tensor], relabeller: Relabeller, degree_S: np.ndarray | None) -> LabelledSeeds:
        source_at, target_at = at
        offset_B = None if self.offsets is None else torch.from_numpy(self.offsets)
        return LabelledSeeds(source_at, target_at, torch.from_numpy(self.labels), offset_B)
