"""What a task tells the sampler: the seeds of a step.

A global step is a fixed set of seeds, the same for any number of ranks; each belongs to one rank, so ranks have
different numbers of them, and a rank may have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.random import Purpose, make_key, permute
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.relabeller import Relabeller


class Seeds(Protocol):
    """A task's own part of a batch, as its loss reads it."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Seeds:
        """A copy on a device."""


class SeedPairs(NamedTuple):
    """nodes: int64 [m, 2], sources and targets of edges. times: int64 [m], microseconds; None where they have none."""

    nodes: np.ndarray
    times: np.ndarray | None

    def and_(self, more: SeedPairs) -> SeedPairs:
        """Those of both, which are of one relation."""
        times = None
        if self.times is not None and more.times is not None:
            times = np.concatenate([self.times, more.times])
        return SeedPairs(np.concatenate([self.nodes, more.nodes]), times)


class DrawnSeeds(Protocol):
    """The seeds of one step, as node IDs.

    num_global: seeds over all ranks. nodes: int64 arrays of this rank's seed nodes, which are numbered in this order.
    predicted: by relation, the edges that the step predicts on any rank; no message may use them. times: of each array
    of `nodes`, when its seeds were, int64 of its shape; None for nodes that are compared with seeds.
    """

    @property
    def num_global(self) -> int: ...

    @property
    def nodes(self) -> Sequence[np.ndarray]: ...

    @property
    def times(self) -> Sequence[np.ndarray | None]: ...

    @property
    def predicted(self) -> Mapping[str, SeedPairs]: ...

    def place(self, at: Sequence[Tensor], relabeller: Relabeller, degree_S: np.ndarray | None) -> Seeds:
        """The task's part of the batch. Collective.

        at: int64, the positions of `nodes` among the seed nodes. degree_S: of all nodes of the batch by number in the
        relabeller, or None where nothing asks for degrees.
        """


class SeedSource(Protocol):
    """Draws the seeds of any step, as a function of (seed, epoch, step) alone."""

    @property
    def steps_per_epoch(self) -> int: ...

    def draw(self, epoch: int, step: int) -> DrawnSeeds: ...


@dataclass(frozen=True)
class StepPairs:
    """The training pairs of a relation, shuffled every epoch, a batch of them each step.

    batch_size: pairs of a step over all ranks. A pair belongs to the rank that owns its source. run: so many pairs that
    follow each other stay together in the shuffle; they are sorted by source, and so mostly of one.
    """

    store: GraphStore
    relation: Relation
    batch_size: int
    seed: int
    run: int = 1

    @property
    def total(self) -> int:
        return self.store.prepared.num_pairs(self.relation, "train")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_runs / self.runs_a_step)

    @property
    def num_runs(self) -> int:
        return math.ceil(self.total / self.run)

    @property
    def runs_a_step(self) -> int:
        return max(self.batch_size // self.run, 1)

    def draw(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] each: the step's pairs over all ranks, by their numbers in the order of the parts, and the rank of
        each."""
        places = np.arange(step * self.runs_a_step, min((step + 1) * self.runs_a_step, self.num_runs))
        runs = permute(make_key(self.seed, Purpose.SHUFFLE, epoch), places, self.num_runs)
        numbers = (runs[:, None] * self.run + np.arange(self.run)).ravel()
        # the last run may be shorter
        numbers = numbers[numbers < self.total]
        starts = self.store.prepared.pair_starts(self.relation, "train")[self.store.transport.rank_starts]
        return numbers, np.searchsorted(starts, numbers, side="right") - 1

    def pairs(self, numbers: np.ndarray) -> SeedPairs:
        """The pairs with these numbers, which all ranks ask for. Collective."""
        nodes = self.store.pairs(self.relation, "train", numbers)
        has_times = self.store.prepared.has_times(self.relation)
        return SeedPairs(nodes, self.store.pair_times(self.relation, "train", numbers) if has_times else None)
