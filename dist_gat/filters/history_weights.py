"""`HistoryWeights`: how much each interaction of a user's history counts.

    weight = weight of the relation · rating · 2^(-newer / half-life)

newer: how many interactions of the same user are newer, over all relations of the history; those of one time count
alike, so that no order of IDs matters. rating: 1, the weight that the edge carries, or log(1 + weight).

Shape legend: m interactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dist_gat.base.errors import DataError
from dist_gat.config.sections import BlendConfig, EdgeWeights
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation, Schema


@dataclass(frozen=True)
class HistoryWeights:
    """relations: that the history is of, with the weight of each. half_life: in interactions; None: all count alike."""

    relations: Mapping[Relation, float]
    edge_weights: EdgeWeights = "none"
    half_life: float | None = None


def history_weights(
    schema: Schema, relation: Relation, config: BlendConfig, half_life: float | None
) -> HistoryWeights:  # fmt: skip
    """Those of the relation that is predicted, and of further ones beside it."""
    further = {one: config.relations[one.name] for one in schema.relations if one.name in config.relations}
    return HistoryWeights({relation: 1.0} | further, config.edge_weights, half_life)


def check_history(prepared: PreparedGraph, relation: Relation, config: BlendConfig) -> None:
    """Raise `DataError` where interactions lack the times or the weights that the filters are to read."""
    if not (config.linear or config.spectral_rank):
        return
    relations = history_weights(prepared.schema, relation, config, None).relations
    first = prepared.schema.relations[0]
    columns = {one: "data.columns" if one == first else f"data.relations.{one.name}.columns" for one in relations}
    for one in relations:
        if any(config.half_lives) and not prepared.has_times(one):
            raise DataError(
                f"{prepared.folder}: blend.half_life goes by time, and the pairs of {one.name} have none: name "
                f"{columns[one]}.datetime and prepare again, or leave blend.half_life out"
            )
    if config.edge_weights != "none":
        weighted = [one for one in relations if prepared.has_label(one, "weight")]
        if not weighted:
            raise DataError(
                f"{prepared.folder}: blend.edge_weights={config.edge_weights} reads weights, and no pairs of "
                f"{', '.join(one.name for one in relations)} have any: name {columns[relation]}.weight and prepare "
                "again, or leave blend.edge_weights out"
            )
        for one in weighted:
            if (smallest := prepared.describe_labels(one, "weight")["min"]) < 0:
                raise DataError(
                    f"{prepared.folder}: blend.edge_weights={config.edge_weights} expects weights of 0 or more, and "
                    f"{one.name} has {smallest:g}: leave blend.edge_weights out"
                )


def newer_in_history(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64 [m]: how many interactions of the same user are newer. users, times: int64 [m], in any order."""
    order = np.lexsort((times, users))
    if not len(order):
        return np.zeros(0, np.int64)
    user, time = users[order], times[order]
    is_last = user[1:] != user[:-1]
    newer = np.empty(len(order), np.int64)
    newer[order] = _ends(is_last) - _ends(is_last | (time[1:] != time[:-1]))
    return newer


def decay(newer: np.ndarray, half_life: float | None) -> np.ndarray:
    """float32 [m]: 2^(-newer / half-life); 1 without one."""
    return np.exp2(-newer / (half_life or np.inf)).astype(np.float32)


def rated(weights: np.ndarray, edge_weights: EdgeWeights) -> np.ndarray:
    """float32 [m]: the rating of interactions that carry these weights."""
    if edge_weights == "none":
        return np.ones_like(weights)
    return np.log1p(weights) if edge_weights == "log" else weights


def _ends(is_last: np.ndarray) -> np.ndarray:
    """int64 [m]: where the run of each of m positions ends. is_last: bool [m - 1], whether a run ends there."""
    ends = np.append(np.flatnonzero(is_last) + 1, len(is_last) + 1)
    return np.repeat(ends, np.diff(ends, prepend=0))
