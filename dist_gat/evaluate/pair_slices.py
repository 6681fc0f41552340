"""Metrics of predicted pairs by slices: by the activity of their sources and by the popularity of their targets.

The slices are those of ranking, see `dist_gat.evaluate.degrees`.

Shape legend: m pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dist_gat.evaluate.degrees import DegreeSlices, degrees_of, item_slices, user_slices
from dist_gat.evaluate.pair_values import PairValues
from dist_gat.exchange.channel import Channel
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

# metrics of labels and predictions, float64 [m], whose pairs belong to sources, int64 [m]
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, float]]


def pair_slices(
    predicted: PairValues, measure: Measure, store: GraphStore, channel: Channel, relation: Relation
) -> dict[str, dict[str, Any]]:
    """`{"users": {slice: {...}}, "items": {slice: {...}}}`, the same on every rank. Collective.

    predicted: pairs whose values are predictions. Each slice has its `num_nodes`, `min_degree`, `max_degree`, how many
    pairs, users and items its metrics are of, and the metrics: NaN where they are undefined.
    """
    sides = {
        "users": (user_slices(store, channel, relation.source), 0),
        "items": (item_slices(store, channel, relation.target), 1),
    }
    return {
        name: _by_degree(predicted, measure, slices, degrees_of(store, predicted.pairs[:, side]))
        for name, (slices, side) in sides.items()
    }


def _by_degree(
    predicted: PairValues, measure: Measure, slices: DegreeSlices, degrees: np.ndarray
) -> dict[str, dict[str, Any]]:
    """degrees: int64 [m], of the node that puts a pair into its slice."""
    found, described = {}, slices.describe()
    members = {name: slices.slice_of[degrees] == number for number, name in enumerate(slices.names)}
    measured = {
        name: measure(predicted.labels[mine], predicted.values[mine], predicted.pairs[mine, 0])
        for name, mine in members.items()
        if mine.any()
    }
    undefined = dict.fromkeys(next(iter(measured.values())), float("nan"))
    for name, mine in members.items():
        users, items = (len(np.unique(nodes)) for nodes in predicted.pairs[mine].T)
        counts = {"num_pairs": int(mine.sum()), "num_users": users, "num_items": items}
        found[name] = {**described[name], **counts, **measured.get(name, undefined)}
    return found
