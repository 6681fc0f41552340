"""Baselines through the same ranking and metrics as the models, on one machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_array

from dist_gat.baselines.als import fit_als
from dist_gat.baselines.ease import fit_ease
from dist_gat.baselines.graph_filters import fit_gfcf, fit_linear
from dist_gat.baselines.most_popular import fit_popularity
from dist_gat.baselines.neighbors import fit_itemknn, fit_userknn
from dist_gat.baselines.scorer import Fit
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.full_ranking import PartRanking, rank_parts, ranking_metrics
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import Relation

BASELINES: dict[str, Fit] = {
    "popularity": fit_popularity,
    "userknn": fit_userknn,
    "itemknn": fit_itemknn,
    "als": fit_als,
    "ease": fit_ease,
    "gfcf": fit_gfcf,
    "linear": fit_linear,
}


def evaluate_baseline(
    name: str, prepared: PreparedGraph, relation: Relation, split: str, config: EvaluateConfig, seed: int,
    worker: Worker,
) -> dict[str, float]:  # fmt: skip
    """Metrics of one baseline on a split, trained on the training interactions.

    worker: the only one. Raises `ConfigError` where the baseline can't run on this data set or machine.
    """
    parts = range(prepared.ranges.num_parts)
    sample = sample_users(prepared, relation, split, parts, config.num_users, seed, worker.control)
    rankings = rank_baseline(name, prepared, relation, split, config, sample.users, worker)
    return ranking_metrics(rankings, prepared, worker.control, relation, split, config.ks) | sample.counts


def rank_baseline(
    name: str, prepared: PreparedGraph, relation: Relation, split: str, config: EvaluateConfig,
    users: Mapping[int, np.ndarray], worker: Worker,
) -> list[PartRanking]:  # fmt: skip
    """The best items of `users`, part by part."""
    ranges = prepared.ranges
    score = BASELINES[name](training_matrix(prepared, relation), config.baseline)
    user_shift, item_shift = shifts(ranges, relation.source), shifts(ranges, relation.target)

    def score_part(part: int, users_n: np.ndarray, first: int, last: int) -> np.ndarray:
        shift = int(item_shift[ranges.part_of(np.array(first))])
        return score(users_n - user_shift[part], slice(first - shift, last - shift))

    return rank_parts(prepared, relation, users, split, max(config.ks), config.user_chunk, score_part, worker)


def training_matrix(prepared: PreparedGraph, relation: Relation) -> csr_array:
    """float32 [users, items]: 1 at each training pair of a relation.

    Users are its sources and items its targets, both in the order of their node IDs.
    """
    ranges = prepared.ranges
    pairs = np.concatenate([part.pairs(relation, "train") for part in prepared.parts])
    row, column = (
        nodes - shifts(ranges, kind)[ranges.part_of(nodes)]
        for kind, nodes in zip((relation.source, relation.target), pairs.T, strict=True)
    )
    shape = (ranges.count(relation.source), ranges.count(relation.target))
    return csr_array((np.ones(len(pairs), np.float32), (row, column)), shape=shape)


def shifts(ranges: NodeRanges, node_type: str) -> np.ndarray:
    """int64 [P]: in each part, node ID minus position among all nodes of the type."""
    sizes = ranges.counts(node_type)
    return ranges.bounds_of(node_type)[:, 0] - (np.cumsum(sizes) - sizes)
