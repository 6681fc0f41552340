"""`PairTask`: predict a label of given pairs; the likelihood says what labels are.

Shape legend: B pairs of this rank, R representation size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import PAIR_METRICS, TaskConfig
from dist_gat.evaluate.pair_values import PairValues, infer_pair_values
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation
from dist_gat.nn.pair_head import PairHead
from dist_gat.nn.recommender import Recommender, messages_need_degree
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.seeds import StepPairs
from dist_gat.tasks.calibration import calibrate, fit_calibration
from dist_gat.tasks.clicks import ClickLikelihood
from dist_gat.tasks.counts import CountLikelihood
from dist_gat.tasks.labelled_pairs import LabelledSeeds, LabelledSource
from dist_gat.tasks.rating import RatingLikelihood


class PairTaskHead(nn.Module):
    """What the task trains beside the encoder."""

    def __init__(self, pair: PairHead, likelihood: Any) -> None:
        super().__init__()
        self.pair = pair
        self.likelihood = likelihood


@dataclass(frozen=True)
class PairTask:
    """A `Task`. kind: of the label. batch_size: pairs of a step over all ranks. l2: weight of the pairs' ID rows."""

    kind: str
    relation: Relation
    likelihood: Any
    batch_size: int
    seed: int
    edge_chunk: int
    l2: float
    metric: str
    needs_degree: bool

    @property
    def higher_is_better(self) -> bool:
        return PAIR_METRICS[self.kind][self.metric]

    def build_head(self, size: int) -> nn.Module:
        return PairTaskHead(PairHead(size), self.likelihood)

    def source(self, store: GraphStore) -> LabelledSource:
        return LabelledSource(StepPairs(store, self.relation, self.batch_size, self.seed))

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        seeds = batch.seeds
        assert isinstance(seeds, LabelledSeeds), "a batch of this task"
        source_BR, target_BR = embedding(seeds.source_at_B, rows_NR), embedding(seeds.target_at_B, rows_NR)
        value_B = model.pair_values(source_BR, target_BR)
        loss_B = self.likelihood.loss(value_B, seeds.label_B.to(value_B.dtype))
        terms = {self.likelihood.loss_name: loss_B.sum() / batch.num_global_seeds}
        if self.l2:
            at = torch.cat([seeds.source_at_B, seeds.target_at_B])
            terms["l2"] = self.l2 * embedding_SE[at].square().sum() / (2 * batch.num_global_seeds)
        return terms

    def validate(self, model: Recommender, store: GraphStore, worker: Worker) -> dict[str, float]:
        return self.measure(self.values(model, store, worker, "valid"))

    def values(self, model: Recommender, store: GraphStore, worker: Worker, split: str) -> PairValues:
        """Of all pairs of a split. Collective."""
        return infer_pair_values(model, store, worker, self.relation, split, self.edge_chunk)

    def measure(self, found: PairValues, predictions: np.ndarray | None = None) -> dict[str, float]:
        """Metrics of the likelihood's predictions, or of calibrated ones, and how many pairs there were."""
        predictions = self.likelihood.predict(found.values) if predictions is None else predictions
        metrics = self.likelihood.metrics(found.labels, predictions, found.pairs[:, 0])
        return {**metrics, "num_pairs": float(len(found.pairs))}


def build_pair_task(config: Config, relation: Relation, prepared: PreparedGraph) -> PairTask:
    """Raises `DataError` where the labels are missing, or are none of this kind."""
    labels, kind = prepared.label_range(relation), config.task.kind
    likelihood = build_likelihood(config.task, labels)
    if wrong := likelihood.check(labels["min"], labels["max"]):
        raise DataError(f"{prepared.folder}: task.kind={kind}: {wrong}")
    return PairTask(
        kind, relation, likelihood, config.train.batch_size, config.seed, config.evaluate.edge_chunk,
        config.loss.l2, config.train.metric, messages_need_degree(config.model),
    )  # fmt: skip


def build_likelihood(task: TaskConfig, labels: Mapping[str, float]) -> Any:
    """labels: `mean`, `min` and `max` of the training labels."""
    if task.kind == "rating":
        return RatingLikelihood(task, labels["mean"], labels["min"], labels["max"])
    if task.kind == "click":
        return ClickLikelihood(task)
    assert task.kind == "count", "ranking has a task of its own"
    return CountLikelihood(task, labels["mean"])


def calibration_of(task: TaskConfig, found: PairValues) -> dict[str, Any]:
    """Fitted on the values of validation pairs, unless the recipe has one already; of clicks alone."""
    if task.kind != "click":
        return {"kind": "none"}
    if task.fitted is not None or not len(found.labels):
        return task.fitted or {"kind": "none"}
    return fit_calibration(task.calibration, found.values, found.labels)


def calibrated(likelihood: Any, values: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
    """Predictions in the unit of the labels."""
    return likelihood.predict(values) if calibration["kind"] == "none" else calibrate(values, calibration)
