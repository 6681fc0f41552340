"""Ranking: an item that a user met scores above items drawn at random.

The loss of a step is this rank's share of a mean over the seeds of all ranks.

Shape legend: B seeds of this rank, C candidates that all ranks share, K own negatives, N negatives of a seed, M rows
that the ranks offer each other, R representation size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import Config, EvaluateConfig, LossConfig, NegativesConfig
from dist_gat.evaluate.split_metrics import split_metrics
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import share_rows
from dist_gat.exchange.worker import Worker
from dist_gat.graph.schema import Relation
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.own_scores import has_own_scores
from dist_gat.nn.recommender import Recommender, messages_need_degree
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.tasks.distillation import distillation_term
from dist_gat.tasks.ranking_loss import bpr_loss, sampled_softmax_loss
from dist_gat.tasks.ranking_seeds import RankingSeeds, RankingSource, ranking_source
from dist_gat.tasks.regularisation import l2_term


@dataclass(frozen=True)
class RankingTask:
    """A `Task`. batch_size: pairs of a step over all ranks. metric: of full ranking, such as ndcg@20. run: see
    `StepPairs`."""

    relation: Relation
    negatives: NegativesConfig
    objective: LossConfig
    evaluation: EvaluateConfig
    batch_size: int
    seed: int
    metric: str
    needs_degree: bool
    higher_is_better: bool = True
    run: int = 1
    hidden_columns: float = 0.0

    def build_head(self, size: int) -> None:
        """The decoder is enough."""

    def source(self, store: GraphStore) -> RankingSource:
        return ranking_source(store, self.relation, self.negatives, self.batch_size, self.seed, self.run)

    def loss(
        self, model: Recommender, rows_NR: Tensor, embedding_SE: Tensor, batch: Batch, channel: Channel
    ) -> dict[str, Tensor]:
        terms = loss_terms(rows_NR, embedding_SE, batch, model.decoder, self.objective, self.negatives, channel)
        seeds = batch.seeds
        assert isinstance(seeds, RankingSeeds), "a batch of this task"
        ends = [seeds.user_at_B, seeds.item_at_B]
        return terms | distillation_term(self.objective.distill, model, embedding_SE, batch, len(rows_NR), ends)

    def rows(self, model: Recommender, representation_NR: Tensor, nodes: np.ndarray, store: GraphStore) -> Tensor:
        return model.ranking_rows(representation_NR, nodes, store, self.relation)

    def measure(
        self, model: Recommender, representation_OR: Tensor, store: GraphStore, worker: Worker, split: str
    ) -> dict[str, float]:
        rows_OR = self.rows(model, representation_OR, store.ownership.own_nodes, store)
        return split_metrics(rows_OR, store, worker, self.relation, split, self.evaluation, self.seed)


def build_ranking(config: Config, relation: Relation) -> RankingTask:
    return RankingTask(
        relation, config.negatives, config.loss, config.evaluate, config.train.batch_size, config.seed,
        config.train.metric, needs_degree(config.model, config.loss, config.negatives),
    )  # fmt: skip


def needs_degree(model: ModelConfig, loss: LossConfig, negatives: NegativesConfig) -> bool:
    """Whether a batch must have in-degrees: for messages, for nodes' own scores or for the log-Q correction."""
    skewed = negatives.in_batch or negatives.distribution == "popularity"
    corrects = loss.kind == "softmax" and loss.log_q and skewed
    return messages_need_degree(model) or has_own_scores(model.decoder) or corrects


def loss_terms(
    rows_NR: Tensor,
    embedding_SE: Tensor,
    batch: Batch,
    decoder: Decoder,
    loss: LossConfig,
    negatives: NegativesConfig,
    channel: Channel,
) -> dict[str, Tensor]:
    """See `Task.loss`."""
    seeds = batch.seeds
    assert isinstance(seeds, RankingSeeds), "a batch of this task"
    # as embeddings, which are several times as fast as subscripts, in both directions, and deterministic on a GPU
    user_BR, item_BR = embedding(seeds.user_at_B, rows_NR), embedding(seeds.item_at_B, rows_NR)
    scores, items, num_drawn, log_counts = [], [], [], []
    if negatives.num_shared or negatives.in_batch:
        candidates = seeds.candidates
        offered_CR = share_rows(embedding(candidates.offered_at_M, rows_NR), channel, candidates.offered_counts)
        scores.append(decoder.cross_scores(user_BR, offered_CR))
        items.append(candidates.item_C[None])
        num_drawn.append(candidates.num_drawn_C[None])
        log_counts.append(candidates.log_count_C[None])
    if negatives.num_per_seed:
        scores.append(decoder.per_user_scores(user_BR, embedding(seeds.own_at_BK, rows_NR)))
        items.append(seeds.own_BK)
        num_drawn.append(seeds.log_count_BK.new_ones(1, seeds.own_BK.shape[1]))
        log_counts.append(seeds.log_count_BK)
    num_seeds = len(user_BR)
    neg_BN = side_by_side(scores, num_seeds)
    valid_BN = side_by_side([item_BN != seeds.item_B[:, None] for item_BN in items], num_seeds)
    num_drawn_BN = side_by_side(num_drawn, num_seeds).to(neg_BN.dtype)
    pos_B = decoder.pair_scores(user_BR, item_BR)
    if loss.kind == "bpr":
        loss_B = bpr_loss(pos_B, neg_BN, valid_BN * num_drawn_BN)
    else:
        log_weight_BN = num_drawn_BN.log()
        if loss.log_q:
            log_weight_BN = log_weight_BN - side_by_side(log_counts, num_seeds).to(neg_BN.dtype)
        loss_B = sampled_softmax_loss(pos_B, neg_BN, valid_BN, log_weight_BN)
    terms: dict[str, Tensor] = {loss.kind: loss_B.sum() / batch.num_global_seeds}
    at = [seeds.user_at_B, seeds.item_at_B, seeds.shared_at_N, seeds.own_at_BK]
    return terms | l2_term(loss.l2, embedding_SE, at, batch.num_global_seeds)


def side_by_side(parts: list[Tensor], num_seeds: int) -> Tensor:
    """[B, N]: the columns of all parts, where a part may have one row for all seeds; one part is returned as it is."""
    return parts[0] if len(parts) == 1 else torch.cat([part.expand(num_seeds, -1) for part in parts], dim=1)
