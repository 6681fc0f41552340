"""Ranking metrics by slices: users by activity and relevant items by popularity, each with a slice of cold nodes.

Users:  the metrics of `dist_gat.evaluate.metrics`, averaged over the users of a slice.
Items:  recall@K of a slice: which share of a user's relevant items in it is among the K best, as a mean over users.

`dist_gat.evaluate.degrees` says where slices are cut.

Shape legend: U users of a part, K best items, S slices, P parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dist_gat.base.pairs import pairs_of
from dist_gat.evaluate.degrees import DegreeSlices, degrees_of, item_slices, own_degrees, user_slices
from dist_gat.evaluate.full_ranking import JudgedRanking, sum_of_parts
from dist_gat.evaluate.metrics import metric_names, user_metrics
from dist_gat.exchange.channel import Channel
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore


def slice_metrics(
    judged: Sequence[JudgedRanking],
    store: GraphStore,
    channel: Channel,
    relation: Relation,
    split: str,
    ks: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """`{"users": {slice: {...}}, "items": {slice: {...}}}`, the same bits on any number of ranks. Collective.

    Each slice has its `num_nodes`, `min_degree`, `max_degree`, the `num_users` that its metrics are a mean over, and
    the metrics; these are 0 where there is no such user.
    """
    users, items = user_slices(store, channel, relation.source), item_slices(store, channel, relation.target)
    return {
        "users": metrics_by_user(judged, users, store, channel, relation, ks),
        "items": recall_by_item(judged, items, store, channel, relation, split, ks),
    }


def metrics_by_user(
    judged: Sequence[JudgedRanking],
    slices: DegreeSlices,
    store: GraphStore,
    channel: Channel,
    relation: Relation,
    ks: Sequence[int],
) -> dict[str, dict[str, float]]:
    names = metric_names(ks)
    sums = np.zeros((store.ranges.num_parts, len(slices.names), len(names) + 1))
    for part in judged:
        first_user = store.ranges.nodes_of_type(part.part, relation.source).start
        slice_U = slices.slice_of[own_degrees(store, part.part, relation.source)[part.users - first_user]]
        values = user_metrics(part.hits, part.num_relevant, ks)
        for number in range(len(slices.names)):
            chosen = values[slice_U == number]
            sums[part.part, number] = [*chosen.sum(axis=0), len(chosen)]
    return means(sums, slices, channel, names)


def recall_by_item(
    judged: Sequence[JudgedRanking], slices: DegreeSlices, store: GraphStore, channel: Channel, relation: Relation,
    split: str, ks: Sequence[int],
) -> dict[str, dict[str, float]]:  # fmt: skip
    truths = [pairs_of(store.prepared.parts[part.part].pairs(relation, split), part.users) for part in judged]
    # one request for all parts of this rank, because every rank must ask equally often
    asked = [nodes for part, truth in zip(judged, truths, strict=True) for nodes in (truth[:, 1], part.items.ravel())]
    degrees = np.split(degrees_of(store, np.concatenate(asked)), np.cumsum([len(nodes) for nodes in asked])[:-1])
    sums = np.zeros((store.ranges.num_parts, len(slices.names), len(ks) + 1))
    for part, truth, of_truth, of_items in zip(judged, truths, degrees[::2], degrees[1::2], strict=True):
        user = np.searchsorted(part.users, truth[:, 0])
        slice_UK = slices.slice_of[of_items].reshape(part.items.shape)
        for number in range(len(slices.names)):
            relevant_U = np.bincount(user[slices.slice_of[of_truth] == number], minlength=len(part.users))
            some = relevant_U > 0
            found_UK = (part.hits & (slice_UK == number))[some].cumsum(axis=1)
            recall = [(found_UK[:, k - 1] / relevant_U[some]).sum() for k in ks]
            sums[part.part, number] = [*recall, np.count_nonzero(some)]
    return means(sums, slices, channel, [f"recall@{k}" for k in ks])


def means(
    sums: np.ndarray, slices: DegreeSlices, channel: Channel, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Means over users, from sums [P, S, names + 1] whose last column is the number of users. Collective."""
    described = slices.describe()
    return {
        name: {**described[name], "num_users": users}
        | {metric: total / max(users, 1) for metric, total in zip(names, totals, strict=True)}
        for name, (*totals, users) in zip(slices.names, sum_of_parts(sums, channel).tolist(), strict=True)
    }
