"""Why an item was recommended to a user: what the attention weighs, and whether the score depends on it.

The weight of an edge is its attention averaged over layers and heads. Attention is no explanation by itself (Jain and
Wallace, NAACL 2019). So the heaviest edges are deleted from the message graph, in both directions, and the drop of the
score is compared with the drop without as many random edges of the user (fidelity, Yuan et al., TPAMI 2023).

Shape legend: d edges of a node, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.base.random import Purpose, make_key, permute
from dist_gat.data.vocabulary import parse_id
from dist_gat.explain.neighborhood import Neighborhood
from dist_gat.explain.trained_run import TrainedRun
from dist_gat.serve.recommend import recommend_items
from dist_gat.serve.saved_model import SavedModel

USER_AT, ITEM_AT = 0, 1  # positions in the sub-graph
MAX_DELETED = 5
RANDOM_DRAWS = 20
USERS_BEHIND = 3


def explain_item(
    run: TrainedRun, user: str, item: str | None, top: int, progress: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """The explanation of one recommendation, in plain values and external IDs.

    `user`, `item`, `score` (recomputed) and `saved_score`, `own_scores` (the item's own scores, by name),
    `neighborhood` (its size), `interactions` and `item_users` (the `top` heaviest edges of both, of `num_interactions`
    and `num_item_users`: `relation`, `weight`, `layers` [L][H], and `behind`, the heaviest edges of an interaction's
    item), `others` (the heaviest edges of the user from friends and other nodes that are no items), `fidelity`. Without
    `item` the user's best new item is explained. Raises `DataError` for an unknown ID, and for a user who has met every
    item.
    """
    if top < 1:
        raise ConfigError(f"top={top}: expected a positive number of interactions to show")
    relation = run.saved.relation
    user_id, user_node = find_node(run.saved, relation.source, user)
    _, item_node = find_node(run.saved, relation.target, str(best_new_item(run.saved, user)) if item is None else item)
    targets = np.array([user_node, item_node])
    near = run.neighborhood(targets)
    progress(f"neighbourhood: {len(near.nodes):,} nodes, {near.num_edges:,} edges")
    assert near.indptr[USER_AT + 1], "every user of a prepared data set has a training pair of some relation"
    input_SE = run.input_rows(near.nodes)
    encoded = run.encode(near, input_SE)
    own_scores = run.model.own_scores(targets, run.store)
    score, saved_TR = score_of(run, near, encoded.rows_NR), run.representations(targets)
    names = Names(run.saved, near)
    interactions = heaviest_edges(encoded.alphas, near, USER_AT, top, names.are(relation.target))
    others = heaviest_edges(encoded.alphas, near, USER_AT, top, ~names.are(relation.target))
    return {
        "user": {"user_id": user_id},
        "item": names.of(ITEM_AT),
        "score": score,
        "own_scores": {name: float(value_T[ITEM_AT]) for name, value_T in own_scores.items()},
        "saved_score": float(saved_TR[USER_AT] @ saved_TR[ITEM_AT]),
        "neighborhood": {"nodes": len(near.nodes), "edges": near.num_edges},
        "num_interactions": int(names.are(relation.target)[near.indices[near.edges_of(USER_AT)]].sum()),
        "num_item_users": int(names.are(relation.source)[near.indices[near.edges_of(ITEM_AT)]].sum()),
        "interactions": [
            {**names.of(place), **entry, "behind": users_behind(encoded.alphas, near, place, names, relation.source)}
            for place, entry in interactions
        ],
        "others": [{**names.of(place), **entry} for place, entry in others],
        "item_users": [
            {**names.of(place), **entry}
            for place, entry in heaviest_edges(encoded.alphas, near, ITEM_AT, top, names.are(relation.source))
        ],
        "fidelity": fidelity(run, near, input_SE, edge_weights(encoded.alphas, near, USER_AT), score),
    }


def fidelity(
    run: TrainedRun, near: Neighborhood, input_SE: Tensor, weight_LdH: Tensor, score: float
) -> dict[str, Any]:  # fmt: skip
    """Drops of the score: without the heaviest edges of the user, and without as many random edges of the user.

    At most half of the edges are deleted, so that random ones can differ from the heaviest; a user with one interaction
    loses it in both cases, so both drops are equal. `above_chance`: by more than two standard deviations.
    """
    sources = near.indices[near.edges_of(USER_AT)]
    count = max(1, min(MAX_DELETED, len(sources) // 2))

    def drop(edges: np.ndarray) -> float:
        rest = near.without(USER_AT, sources[edges])
        return score - score_of(run, near, run.encode(rest, input_SE).rows_NR)

    keys = [
        make_key(run.config.seed, Purpose.EXPLANATION, int(near.nodes[USER_AT]), draw) for draw in range(RANDOM_DRAWS)
    ]
    drops = [drop(permute(key, np.arange(count), len(sources))) for key in keys]
    top_drop, mean, std = drop(heaviest_first(weight_LdH)[:count]), float(np.mean(drops)), float(np.std(drops))
    return {
        "deleted": count,
        "top_drop": top_drop,
        "random_drop_mean": mean,
        "random_drop_std": std,
        "above_chance": top_drop > mean + 2 * std,
        "random_drops": drops,
    }


def score_of(run: TrainedRun, near: Neighborhood, rows_TR: Tensor) -> float:
    """The score of the two targets without the blend: the inner product of their ranking rows.

    It includes own scores, which are those of the whole graph, whatever edges are deleted.
    """
    rows_TR = run.task.rows(run.model, rows_TR, near.nodes[: len(rows_TR)], run.store)
    return float(rows_TR[USER_AT] @ rows_TR[ITEM_AT])


def edge_weights(alphas: list[Tensor], near: Neighborhood, place: int) -> Tensor:
    """[L, d, H]: the attention of a node to its neighbours, in every layer that computes the node."""
    edges = near.edges_of(place)
    return torch.stack([alpha_AH[edges] for alpha_AH in alphas if edges.stop <= len(alpha_AH)])


def heaviest_first(weight_LdH: Tensor) -> np.ndarray:
    """int64 [d]: a node's edges by their mean weight, the heaviest first; equal ones in their order."""
    return np.argsort(-weight_LdH.double().mean(dim=(0, 2)).numpy(), kind="stable")


def heaviest_edges(
    alphas: list[Tensor], near: Neighborhood, place: int, top: int, are_wanted: np.ndarray
) -> list[tuple[int, dict[str, Any]]]:
    """The `top` heaviest edges of a node from wanted ones, bool [S]: the neighbour's position; `relation`, `weight`
    and, for each layer and head, `layers`."""
    weight_LdH = edge_weights(alphas, near, place)
    edges = near.edges_of(place)
    sources, kinds = near.indices[edges], near.stored["kind"][edges]
    order = heaviest_first(weight_LdH)
    found = []
    for edge in order[are_wanted[sources[order]]][:top]:
        weight_LH = weight_LdH[:, int(edge)]
        relation = near.schema.edge_types[int(kinds[edge])].relation.name
        weight = {"weight": float(weight_LH.double().mean()), "layers": weight_LH.tolist()}
        found.append((int(sources[edge]), {"relation": relation, **weight}))
    return found


def users_behind(
    alphas: list[Tensor], near: Neighborhood, item_at: int, names: Names, kind: str
) -> list[dict[str, Any]]:
    """The users that an interaction's item itself attends to most, one hop further; none with a single layer."""
    if len(alphas) == 1:
        return []
    found = heaviest_edges(alphas, near, item_at, USERS_BEHIND, names.are(kind))
    return [{**names.of(place), **entry} for place, entry in found]


def find_node(saved: SavedModel, kind: str, text: str) -> tuple[Any, int]:
    """The external ID that prints as `text`, in the data set's type, and its node. Raises `DataError`."""
    ids = saved.ids(kind)
    found = parse_id(text, ids["external_id"].alias(f"{kind} ID"))
    return found, int(ids.filter(pl.col("external_id") == found)["node_id"][0])


def best_new_item(saved: SavedModel, user: str) -> Any:
    """The external ID of the item that `recommend` puts first. Raises `DataError` where there is none."""
    best = recommend_items(saved, [user], 1)
    if best.is_empty():
        raise DataError(f"user '{user}' has met every item, so there is none to recommend; give one with --item")
    return best["item_id"][0]


class Names:
    """External IDs, and titles where the data set has some, of the nodes of a sub-graph."""

    def __init__(self, saved: SavedModel, near: Neighborhood) -> None:
        self.nodes, self.ranges = near.nodes, saved.ranges
        self.type_of = saved.ranges.type_of(near.nodes)
        wanted = pl.col("node_id").is_in(pl.Series(near.nodes).implode())
        self.rows = {
            kind: {row["node_id"]: row for row in saved.ids(kind).filter(wanted).to_dicts()}
            for kind in saved.ranges.node_types
        }

    def are(self, kind: str) -> np.ndarray:
        """bool [S]: which nodes are of a type."""
        return self.type_of == self.ranges.index_of(kind)

    def of(self, place: int) -> dict[str, Any]:
        kind = self.ranges.node_types[int(self.type_of[place])]
        row = self.rows[kind][int(self.nodes[place])]
        return {f"{kind}_id": row["external_id"], **({"title": row["title"]} if "title" in row else {})}
