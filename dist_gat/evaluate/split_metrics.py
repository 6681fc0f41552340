"""Ranking metrics of a split and, where it holds items out, of cold and warm items apart.

Each is recall, NDCG and so on of some of a user's held-out interactions in a ranking of some of the items:

name               interactions with    ranked among
(none)             all items            all items
cold               cold items           all items
cold_among_cold    cold items           the split's cold items: the cold-start recall of DropoutNet (Volkovs, Yu and
                                        Poutanen, NeurIPS 2017) and CLCRec (Wei et al., MM 2021)
warm               the other items      all items
warm_among_warm    the other items      the other items

Cold are the items that `data.split.cold_items` holds out for this split, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dist_gat.config.sections import EvaluateConfig
from dist_gat.config.task_sections import AMONG, COLD_METRICS
from dist_gat.evaluate.full_ranking import PartRanking, judge, rank_representations, ranking_metrics
from dist_gat.evaluate.spread import ranking_spread
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import share_rows
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import SPLITS, PreparedGraph
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

# rankings among some of the items, bool by node
Rank = Callable[[np.ndarray], list[PartRanking]]
Metrics = dict[str, float]


def split_metrics(
    rows_OR: torch.Tensor, store: GraphStore, worker: Worker, relation: Relation, split: str, config: EvaluateConfig,
    seed: int,
) -> Metrics:  # fmt: skip
    """Full-ranking metrics of a split, by a model's ranking rows alone. Collective."""
    prepared, control = store.prepared, worker.control
    sample = sample_users(prepared, relation, split, store.own_parts, config.num_users, seed, control)

    def rank(among: np.ndarray | None) -> list[PartRanking]:
        return rank_representations(rows_OR, store, worker, relation, split, config, sample.users, among=among)

    rankings = rank(None)
    found = ranking_metrics(rankings, prepared, control, relation, split, config.ks)
    apart, _ = cold_metrics(rankings, rank, prepared, relation, split, store.own_parts, control, config.ks)
    return found | apart | sample.counts


def cold_metrics(
    everything: Sequence[PartRanking], rank: Rank, prepared: PreparedGraph, relation: Relation, split: str,
    parts: Sequence[int], channel: Channel, ks: Sequence[int],
) -> tuple[Metrics, Metrics]:  # fmt: skip
    """By `NAME/metric`, the metrics of cold and warm items, and their standard errors; nothing where the split has no
    cold items.

    everything: the best of all items, of users with interactions in the split. rank: their best of some. parts: of this
    rank. Collective.
    """
    is_cold = cold_items(prepared, relation, split, parts, channel)
    if is_cold is None:
        return {}, {}
    found: Metrics = {}
    spread: Metrics = {}
    for name in COLD_METRICS:
        kind, _, among = name.partition(AMONG)
        relevant = is_cold if kind == "cold" else ~is_cold
        rankings = rank(relevant) if among else everything
        metrics = ranking_metrics(rankings, prepared, channel, relation, split, ks, relevant)
        judged = judge(rankings, prepared, relation, split, relevant)
        spreads = ranking_spread(judged, prepared.ranges.num_parts, channel, ks)
        found |= {f"{name}/{metric}": value for metric, value in metrics.items()}
        spread |= {f"{name}/{metric}": value for metric, value in spreads.items()}
    return found, spread


def cold_items(
    prepared: PreparedGraph, relation: Relation, split: str, parts: Sequence[int], channel: Channel
) -> np.ndarray | None:
    """bool, by node: the items that are held out for a split; None where there are none. Collective."""
    counts = prepared.cold_targets(relation)
    if counts is None or not sum(counts[split]):
        return None
    own = np.zeros(sum(prepared.parts[part].num_nodes for part in parts), np.uint8)
    for number in parts:
        part, items = prepared.parts[number], prepared.ranges.nodes_of_type(number, relation.target)
        first = items.start - prepared.parts[parts[0]].first_node
        own[first : first + len(items)] = part.cold(relation.target) == SPLITS.index(split)
    return share_rows(torch.from_numpy(own), channel).numpy().astype(bool)
