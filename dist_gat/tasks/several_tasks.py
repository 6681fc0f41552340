"""`SeveralTasks`: what a task over several others is besides its loss and its metrics.

Shape legend: N seed nodes, R representation size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from dist_gat.graph.schema import Relation
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.movable import Movable
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.seeds import DrawnSeeds, SeedPairs, Seeds, SeedSource
from dist_gat.tasks.task import Task

Part = TypeVar("Part", bound=Task, covariant=True)


@dataclass(frozen=True)
class SeveralTasks(Generic[Part]):
    """of: the tasks by name. The first one is predicted and ranks."""

    of: Mapping[str, Part]

    @property
    def first(self) -> Part:
        return next(iter(self.of.values()))

    @property
    def relation(self) -> Relation:
        return self.first.relation

    @property
    def needs_degree(self) -> bool:
        return any(task.needs_degree for task in self.of.values())

    def source(self, store: GraphStore) -> TogetherSource:
        return TogetherSource({name: task.source(store) for name, task in self.of.items()})

    def batches(self, batch: Batch) -> Iterator[tuple[str, Part, Batch]]:
        """Each task with its part of a batch."""
        seeds = batch.seeds
        assert isinstance(seeds, TogetherSeeds), "a batch of these tasks"
        for name, task in self.of.items():
            yield name, task, replace(batch, seeds=seeds.of[name], num_global_seeds=seeds.num_global[name])

    def rows(self, model: Recommender, representation_NR: Tensor, nodes: np.ndarray, store: GraphStore) -> Tensor:
        return self.first.rows(model, representation_NR, nodes, store)


@dataclass(frozen=True)
class TogetherSeeds(Movable):
    """of: each task's part of the batch. num_global: each task's seeds over all ranks. num_own: this rank's of the
    first task."""

    of: dict[str, Seeds]
    num_global: dict[str, int]
    num_own: int


@dataclass(frozen=True)
class TogetherSource:
    """A `SeedSource`: the steps of all tasks, side by side. An epoch is one of the first; each goes at its own pace."""

    of: Mapping[str, SeedSource]

    @property
    def steps_per_epoch(self) -> int:
        return next(iter(self.of.values())).steps_per_epoch

    def draw(self, epoch: int, step: int) -> DrawnTogether:
        number = epoch * self.steps_per_epoch + step
        return DrawnTogether(
            {name: source.draw(*divmod(number, source.steps_per_epoch)) for name, source in self.of.items()}
        )


@dataclass(frozen=True)
class DrawnTogether:
    """of: by name, what each task drew."""

    of: Mapping[str, DrawnSeeds]

    @property
    def first(self) -> DrawnSeeds:
        return next(iter(self.of.values()))

    @property
    def num_global(self) -> int:
        return self.first.num_global

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        return tuple(nodes for drawn in self.of.values() for nodes in drawn.nodes)

    @property
    def times(self) -> tuple[np.ndarray | None, ...]:
        return tuple(times for drawn in self.of.values() for times in drawn.times)

    @property
    def predicted(self) -> dict[str, SeedPairs]:
        found: dict[str, SeedPairs] = {}
        for drawn in self.of.values():
            for name, more in drawn.predicted.items():
                found[name] = found[name].and_(more) if name in found else more
        return found

    def place(self, at: Sequence[Tensor], relabeller: Relabeller, degree_S: np.ndarray | None) -> TogetherSeeds:
        places: Iterator[Tensor] = iter(at)
        of = {
            name: drawn.place([next(places) for _ in drawn.nodes], relabeller, degree_S)
            for name, drawn in self.of.items()
        }
        num_own = len(self.first.nodes[0])
        return TogetherSeeds(of, {name: drawn.num_global for name, drawn in self.of.items()}, num_own)
