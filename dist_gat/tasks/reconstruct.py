"""Reconstruction: a graph auto-encoder, to pre-train a model that other tasks begin with.

Each step hides edges of all relations that have pairs, and predicts them from what is left of the graph, as MaskGAE
does (Li et al., KDD 2023). The encoder is the recommender's and the decoder its product of rows. The loss of a relation
is that of ranking its hidden targets above negatives (`negatives`, `loss`). Several edges of a source are hidden at
once, so that what is left of a neighbourhood must say more than with one edge hidden. A step hides the same share of
the edges of each relation: an epoch of each takes as many steps as one of the first, which validation measures.

With `hidden_columns` it also hides the columns of some nodes, wherever they are in the batch, as GraphMAE does (Hou et
al., KDD 2022), and decodes them from the representations of these nodes. The loss of columns is that of both ends of
each hidden edge, so that it is the same on any number of workers.

Shape legend: N seed nodes, O own nodes, R representation size, S outermost sources, E embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import FIRST_RELATION
from dist_gat.config.task_sections import ReconstructTask as ReconstructSection
from dist_gat.data.column_layout import Layout
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.column_decoder import ColumnDecoders
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.tasks.ranking import RankingTask, build_ranking
from dist_gat.tasks.several_tasks import SeveralTasks


@dataclass(frozen=True)
class ReconstructTask(SeveralTasks[RankingTask]):
    """A `Task`. of: the ranking of each relation's hidden edges, by name, the measured one first. weights: of their
    losses. layouts: of the columns that may be hidden, by node type."""

    weights: Mapping[str, float]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    hidden_columns: float = 0.0
    column_weight: float = 1.0

    @property
    def metric(self) -> str:
        return self.first.metric

    @property
    def higher_is_better(self) -> bool:
        return self.first.higher_is_better

    def build_head(self, size: int) -> ColumnDecoders | None:
        """Of edges the decoder is enough."""
        return ColumnDecoders(self.layouts, size) if self.hidden_columns else None

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        terms = {}
        columns_N = self.column_loss(model, rows_NR, batch)
        for name, task, own in self.batches(batch):
            for term, value in task.loss(model, rows_NR, embedding_SE, own, channel).items():
                terms[f"{name}/{term}"] = self.weights[name] * value
            if columns_N is not None:
                pairs: Any = own.seeds
                loss = columns_N[pairs.user_at_B].sum() + columns_N[pairs.item_at_B].sum()
                # the mean over ends that are hidden, of which their number in expectation is known to all workers
                scale = self.column_weight / (2 * self.hidden_columns * own.num_global_seeds)
                terms[f"{name}/columns"] = self.weights[name] * scale * loss
        return terms

    def column_loss(self, model: Recommender, rows_NR: Tensor, batch: Batch) -> Tensor | None:
        """[N]: of each seed node whose columns are hidden, 0 of others; None where none ever are."""
        if not self.hidden_columns:
            return None
        decoders: Any = model.dense.head
        loss_N = rows_NR.new_zeros(len(rows_NR))
        for kind, (at, columns) in batch.hidden.items():
            seeds, places = batch.seeds_among(at, len(rows_NR))
            loss_N = loss_N.index_add(0, seeds, decoders(kind, rows_NR[seeds], columns[places]))
        return loss_N

    def measure(
        self, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker, split: str
    ) -> dict[str, float]:
        """How the held-out edges of the first relation rank among all, such as mrr@20 and recall@20."""
        return self.first.measure(model, representation_OR, store, worker, split)


def build_reconstruct(section: ReconstructSection, config: Config, prepared: PreparedGraph) -> ReconstructTask:
    """Raises `DataError` for a weight of a relation that can't be reconstructed, and where no columns can be hidden."""
    if section.hidden_columns and not prepared.layouts:
        raise DataError(
            f"task.hidden_columns={section.hidden_columns}: no nodes have columns; name some with data.nodes and "
            "prepare again, or set it to 0"
        )
    known = {one.name: one for one in prepared.schema.relations if one.has_pairs and prepared.num_pairs(one, "train")}
    if unknown := set(section.weights) - set(known):
        raise DataError(
            f"task.weights names {', '.join(sorted(unknown))}; the relations whose edges can be reconstructed are "
            f"{', '.join(known)}"
        )
    weights = {name: section.weights.get(name, 1.0) for name in known}
    chosen = {name: weight for name, weight in weights.items() if weight or name == FIRST_RELATION}
    steps = math.ceil(prepared.num_pairs(known[FIRST_RELATION], "train") / config.train.batch_size)
    of = {}
    for name in chosen:
        size = math.ceil(prepared.num_pairs(known[name], "train") / steps)
        # a few edges of a small relation are still several of them
        run = min(section.hidden_together, size)
        of[name] = replace(build_ranking(config, known[name]), batch_size=size, run=run)
    return ReconstructTask(of, chosen, prepared.layouts, section.hidden_columns, section.column_weight)
