"""`PairTask`: predict a label of given pairs; the likelihood says what labels are.

Shape legend: B pairs of this rank, N seed nodes, O own nodes, R representation size, S outermost sources, E embedding
size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config, LossConfig
from dist_gat.config.task_sections import (
    ClickTask,
    CountTask,
    OwnTask,
    PairConfig,
    RatingTask,
    task_metrics,
)
from dist_gat.evaluate.pair_values import PairValues, PartPairs, infer_pair_values
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import SPLITS, PreparedGraph
from dist_gat.graph.schema import Relation
from dist_gat.nn.pair_head import PairDecoder
from dist_gat.nn.recommender import Recommender, messages_need_degree
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.seeds import StepPairs
from dist_gat.tasks.calibration import calibrate, fit_calibration
from dist_gat.tasks.clicks import ClickLikelihood
from dist_gat.tasks.counts import CountLikelihood
from dist_gat.tasks.distillation import distillation_term
from dist_gat.tasks.labelled_pairs import LabelledRelation, LabelledSeeds, LabelledSource
from dist_gat.tasks.likelihood import Likelihood
from dist_gat.tasks.ordinal import OrdinalLikelihood
from dist_gat.tasks.own_likelihood import load_likelihood
from dist_gat.tasks.pair_negatives import PairNegatives
from dist_gat.tasks.rating import HuberLikelihood, RatingLikelihood
from dist_gat.tasks.regularisation import l2_term
from dist_gat.tasks.task_heads import TaskHeads

# the name of a task that stands alone
ALONE = "prediction"
NO_CALIBRATION = {"kind": "none"}


@dataclass(frozen=True)
class PairTask:
    """A `Task`. batch_size: interactions of a step over all ranks. objective: weights of further terms of the loss.

    needs: names of the tasks whose probabilities its own is multiplied with, see `PairDecoder`. num_users: whose pairs
    are measured, None for all.
    """

    name: str
    config: PairConfig
    labelled: LabelledRelation
    likelihood: Likelihood
    batch_size: int
    seed: int
    objective: LossConfig
    metric: str
    needs_degree: bool
    needs: tuple[str, ...] = ()
    num_users: int | None = None
    hidden_columns: float = 0.0

    @property
    def relation(self) -> Relation:
        return self.labelled.relation

    @property
    def higher_is_better(self) -> bool:
        return task_metrics(self.config, ())[self.metric]

    def build_head(self, size: int) -> TaskHeads:
        return TaskHeads(size, {self.name: self.likelihood})

    def source(self, store: GraphStore) -> LabelledSource:
        return LabelledSource(StepPairs(store, self.relation, self.batch_size, self.seed), self.labelled)

    def decoder(self, model: Recommender) -> PairDecoder:
        head = model.dense.head
        assert isinstance(head, TaskHeads), "the head of this task"
        return head.decoder(model, (*self.needs, self.name))

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        seeds = batch.seeds
        assert isinstance(seeds, LabelledSeeds), "a batch of this task"
        source_BR, target_BR = embedding(seeds.source_at_B, rows_NR), embedding(seeds.target_at_B, rows_NR)
        value_B = self.decoder(model).values(source_BR, target_BR)
        if seeds.offset_B is not None:
            value_B = value_B + seeds.offset_B
        loss_B = self.likelihood.loss(value_B, seeds.label_B.to(value_B.dtype))
        terms = {self.likelihood.loss_name: loss_B.sum() / batch.num_global_seeds}
        ends = [seeds.source_at_B, seeds.target_at_B]
        terms |= l2_term(self.objective.l2, embedding_SE, ends, batch.num_global_seeds)
        return terms | distillation_term(self.objective.distill, model, embedding_SE, batch, len(rows_NR), ends)

    def rows(self, model: Recommender, representation_NR: Tensor, nodes: np.ndarray, store: GraphStore) -> Tensor:
        ends = (
            torch.from_numpy(store.ranges.is_of_type(nodes, kind)).to(representation_NR.device)
            for kind in (self.relation.source, self.relation.target)
        )
        with torch.no_grad():
            return self.decoder(model).rows(representation_NR, *ends)

    def measure(
        self, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker, split: str
    ) -> dict[str, float]:
        found, counts = self.values(model, representation_OR, store, worker, split)
        return self.metrics(found, self.likelihood.predict(found.values)) | counts

    def values(
        self, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker, split: str
    ) -> tuple[PairValues, dict[str, float]]:
        """Of the measured pairs of a split, and the counts of `measured`. Collective."""
        of_parts, counts = self.measured(store.own_parts, split, worker.control)
        return infer_pair_values(self.decoder(model), representation_OR, of_parts, store.ownership, worker), counts

    def measured(self, parts: Sequence[int], split: str, channel: Channel) -> tuple[list[PartPairs], dict[str, float]]:
        """The pairs of a split that metrics are of, by part: all, or those of a sample of the users. Of a sample also
        how many users it has, and of how many. Collective."""
        labelled = self.labelled
        sample = sample_users(labelled.prepared, self.relation, split, parts, self.num_users, self.seed, channel)
        of_parts = labelled.of_parts(parts, split)
        if sample.last is None:
            return of_parts, {}
        return [pairs.of(sample) for pairs in of_parts], {"num_users": float(self.num_users or 0)} | sample.counts

    def metrics(self, found: PairValues, predictions: np.ndarray) -> dict[str, float]:
        """How good predictions of the pairs are, and how many pairs there are."""
        metrics = self.likelihood.metrics(found.labels, predictions, found.pairs[:, 0])
        return {**metrics, "num_pairs": float(len(found.pairs))}

    def saved(self, model: Recommender, found: PairValues) -> dict[str, Any]:
        """Plain data that `dist_gat.serve.predict` reads. found: of the validation pairs."""
        negatives, labels = self.labelled.negatives, self.labelled.prepared
        return {
            "task": self.config.model_dump(mode="json"),
            "labels": {} if negatives else labels.describe_labels(self.relation, self.config.label),
            "temperature": model.decoder.temperature,
            "constant": float(self.decoder(model).head.constant.detach()),
            "needs": list(self.needs),
            "calibration": calibration_of(self.config, found),
            "log_rate": negatives.log_rate if negatives else 0.0,
        }


def build_pair_task(
    name: str, task: PairConfig, config: Config, relation: Relation, prepared: PreparedGraph
) -> PairTask:
    """Raises `DataError` where labels are missing, or are none of this kind."""
    labelled = build_labelled(task, relation, prepared, config.seed)
    labels: Mapping[str, Any] = {}
    if labelled.negatives is None:
        labels = prepared.describe_labels(relation, task.label)
    if labels:
        refuse_equal_labels(labelled, labels)
    likelihood = build_likelihood(task, labels)
    if labels:
        refuse_wrong_rows(prepared, relation, task.label, labels, likelihood.are_labels, likelihood.expected)
    metric = config.train.metric.rpartition("/")[2]
    return PairTask(
        name, task, labelled, likelihood, config.train.batch_size, config.seed, config.loss, metric,
        messages_need_degree(config.model), num_users=config.evaluate.num_users,
    )  # fmt: skip


def build_labelled(task: PairConfig, relation: Relation, prepared: PreparedGraph, seed: int) -> LabelledRelation:
    """Raises `DataError` where the exposure is missing, or is not above 0."""
    negatives = None
    if task.negatives_per_pair:
        negatives = PairNegatives(prepared, relation, task.negatives_per_pair, seed)
    exposure = task.exposure_label
    if exposure is not None:
        described = prepared.describe_labels(relation, exposure)
        refuse_wrong_rows(prepared, relation, exposure, described, lambda found: found > 0, "an exposure above 0")
    return LabelledRelation(prepared, relation, task.label, exposure, negatives)


def refuse_equal_labels(labelled: LabelledRelation, labels: Mapping[str, Any]) -> None:
    """Raise `DataError` where all labels of training are equal."""
    if labels["min"] == labels["max"]:
        raise DataError(
            f"{labelled.prepared.folder}: all labels {labelled.label} are {labels['min']:g}, so there is nothing to "
            "predict; name another column"
        )


def refuse_wrong_rows(
    prepared: PreparedGraph, relation: Relation, label: str, described: Mapping[str, Any],
    are_good: Callable[[np.ndarray], np.ndarray], expected: str,
) -> None:  # fmt: skip
    """Raise `DataError` that names the first pair, of any split, whose label is not good. described: the labels."""
    levels = np.array(described.get("levels", []))
    if len(levels) and are_good(levels).all():
        return
    for split in SPLITS:
        for part in prepared.parts_here:
            found = np.asarray(part.labels(relation, split, label), np.float64)
            wrong = np.flatnonzero(~are_good(found))
            if len(wrong):
                pair = part.pairs(relation, split)[wrong[0]]
                ends = zip((relation.source, relation.target), pair.tolist(), strict=True)
                names = ", ".join(f"{kind} {external_id(prepared, kind, node)!r}" for kind, node in ends)
                raise DataError(
                    f"{prepared.folder}: the {split} row of {names} has {label} {found[wrong[0]]:g}; expected "
                    f"{expected}; correct the row, or name another column or kind of task"
                )


def external_id(prepared: PreparedGraph, kind: str, node: int) -> Any:
    ids = prepared.ids(kind)
    return ids.filter(ids["node_id"] == node)["external_id"].item()


def build_likelihood(task: PairConfig, labels: Mapping[str, Any]) -> Likelihood:
    """labels: of `PreparedGraph.describe_labels`; not looked at by clicks."""
    if isinstance(task, OwnTask):
        return load_likelihood(task, labels)
    if isinstance(task, ClickTask):
        return ClickLikelihood()
    if isinstance(task, CountTask):
        return CountLikelihood(task, labels["mean"])
    assert isinstance(task, RatingTask), "the last kind of task"
    if task.loss == "ordinal":
        if "levels" not in labels:
            raise DataError("task.loss=ordinal: there are more than 100 different labels; take loss=squared")
        return OrdinalLikelihood(labels["levels"], labels["counts"])
    scale = labels["mean"], labels["min"], labels["max"], task.clip
    return RatingLikelihood(*scale) if task.loss == "squared" else HuberLikelihood(*scale, task.huber_delta)


def calibration_of(task: PairConfig, found: PairValues) -> dict[str, Any]:
    """Fitted on the values of validation pairs, unless the recipe has one already; of clicks alone."""
    if not isinstance(task, ClickTask):
        return NO_CALIBRATION
    if task.fitted is not None or not len(found.labels):
        return task.fitted or NO_CALIBRATION
    return fit_calibration(task.calibration, found.values, found.labels)


def calibrated(likelihood: Likelihood, values: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
    """Predictions in the unit of the labels."""
    return likelihood.predict(values) if calibration["kind"] == "none" else calibrate(values, calibration)
