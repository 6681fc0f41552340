"""`TogetherTask`: several tasks over one encoder.

Shape legend: N seed nodes, O own nodes, R representation size, S outermost sources, E embedding size, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dist_gat.config.task_sections import TogetherTask as TogetherSection
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.graph.ranges import NodeRanges
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.tasks.pair_task import PairTask
from dist_gat.tasks.ranking import RankingTask
from dist_gat.tasks.several_tasks import SeveralTasks
from dist_gat.tasks.task_heads import TaskHeads

# of a gradient's norm: a task that pulls at nothing gets no weight without bound
SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class TogetherTask(SeveralTasks[RankingTask | PairTask]):
    """A `Task`. of: the tasks by name. The first one ranks."""

    config: TogetherSection
    ranges: NodeRanges
    metric: str
    higher_is_better: bool
    hidden_columns: float = 0.0

    @property
    def pair_tasks(self) -> Mapping[str, PairTask]:
        return {name: task for name, task in self.of.items() if isinstance(task, PairTask)}

    def build_head(self, size: int) -> TaskHeads:
        likelihoods = {name: task.likelihood for name, task in self.pair_tasks.items()}
        num_experts = self.config.num_experts if self.config.heads == "experts" else 0
        return TaskHeads(size, likelihoods, num_experts, len(self.of) * (self.config.weighting == "uncertainty"))

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        of_tasks = [
            task.loss(model, rows_NR, embedding_SE, own, channel) for _, task, own in self.batches(batch)
        ]  # fmt: skip
        weights = self.weights([sum_of(terms) for terms in of_tasks], model, rows_NR, batch, channel)
        weighted = {
            f"{name}/{term}": weight * value
            for name, terms, weight in zip(self.of, of_tasks, weights, strict=True)
            for term, value in terms.items()
        }
        return weighted | self.regularisation(model, batch)

    def weights(
        self, losses: Sequence[Tensor], model: Recommender, rows_NR: Tensor, batch: Batch, channel: Channel
    ) -> Sequence[Tensor | float]:
        """Of each task's loss. Collective.

        given:         as the recipe says.
        uncertainty:   exp(-s) / 2 with a learned s, whose own term is s / 2 (Kendall, Gal and Cipolla, CVPR 2018).
        gradient_norm: so that the gradients of all losses in the representations of the seeds' sources have the same
                       norm, which is where GradNorm goes with α = 0 (Chen et al., ICML 2018), but at every step anew.
        Both of the latter multiply the weights of the recipe.
        """
        given = [task.weight for task in self.config.tasks.values()]
        if self.config.weighting == "given":
            return given
        if self.config.weighting == "uncertainty":
            precision_T = torch.exp(-log_variance(model)) / 2
            return [weight * precision for weight, precision in zip(given, precision_T, strict=True)]
        # a source is on one rank alone, so that their sum is the same for any number of ranks
        nodes = batch.nodes_S[: len(rows_NR)].cpu().numpy()
        at = torch.from_numpy(np.flatnonzero(self.ranges.is_of_type(nodes, self.relation.source))).to(rows_NR.device)
        gradients = [torch.autograd.grad(loss, rows_NR, retain_graph=True)[0][at] for loss in losses]
        squares = channel.sum(torch.stack([gradient.double().square().sum() for gradient in gradients]).detach())
        norms = squares.sqrt().clamp(min=SMALLEST_NORM)
        return [weight * float(norms.mean() / norm) for weight, norm in zip(given, norms, strict=True)]

    def regularisation(self, model: Recommender, batch: Batch) -> dict[str, Tensor]:
        """The term of learned weights: this rank's share, by its part of the step's first task."""
        if self.config.weighting != "uncertainty":
            return {}
        seeds: Any = batch.seeds
        share = seeds.num_own / batch.num_global_seeds
        return {"uncertainty": share * log_variance(model).sum() / 2}

    def measure(
        self, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker, split: str
    ) -> dict[str, float]:
        return {
            f"{name}/{metric}": value
            for name, task in self.of.items()
            if store.prepared.num_pairs(task.relation, split)
            for metric, value in task.measure(model, representation_OR, store, worker, split).items()
        }


def log_variance(model: Recommender) -> Tensor:
    """[T]: the learned s of each task."""
    head: Any = model.dense.head
    return head.log_variance_T


def sum_of(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
