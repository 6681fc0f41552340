"""Why an item was recommended to a user: what each of its edges contributes to the score, and whether that holds.

The contribution of an edge is the drop of the score without it. The edges that contribute most are deleted from the
message graph, in both directions, and the drop of the score is compared with the drop without as many random edges of
the user (fidelity, Yuan et al., TPAMI 2023). Attention stands beside it, averaged over layers and heads: it is no
explanation by itself (Jain and Wallace, NAACL 2019), and its own drop is told too.

Shape legend: d edges of a node, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.base.random import Purpose, make_key, permute
from dist_gat.data.vocabulary import parse_id
from dist_gat.explain.contributions import MOST_EDGES, contributions
from dist_gat.explain.counterfactual import counterfactual
from dist_gat.explain.edge_facts import edge_facts
from dist_gat.explain.neighborhood import Neighborhood, encode_depths, encode_targets
from dist_gat.explain.node_names import NodeNames
from dist_gat.explain.trained_run import TrainedRun
from dist_gat.serve.ranker import open_ranker
from dist_gat.serve.saved_model import SavedModel

USER_AT, ITEM_AT = 0, 1  # positions in the sub-graph
MAX_DELETED = 5
RANDOM_DRAWS = 20
MOST_LISTS = 5
USERS_BEHIND = 3


def explain_item(
    run: TrainedRun, user: str, item: str | None, top: int, progress: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """The explanation of one recommendation, in plain values and external IDs.

    `user`, `item`, `score` (recomputed) and `saved_score`, `own_scores` (the item's own scores, by name),
    `neighborhood` (its size), `interactions` (the `top` of `num_interactions` that contribute most: what `edge_facts`
    tells, `contribution`, `weight`, `layers` [L][H], and `behind`, the heaviest edges of the interaction's item),
    `others` (the same of friends and other neighbours that are no items), `counterfactual` (see there), `item_users`
    (the heaviest of `num_item_users`; none where items are represented without edges that have times), `fidelity`.
    Without `item` the user's best new item is explained. Raises `DataError` for an unknown ID, for a user who has met
    every item, and for one who attends to nothing.
    """
    if top < 1:
        raise ConfigError(f"top={top}: expected a positive number of interactions to show")
    relation = run.saved.relation
    user_id, user_node = find_node(run.saved, relation.source, user)
    _, item_node = find_node(run.saved, relation.target, str(best_new_item(run.saved, user)) if item is None else item)
    targets = np.array([user_node, item_node])
    near = run.neighborhood(targets)
    progress(f"neighbourhood: {len(near.nodes):,} nodes, {near.num_edges:,} edges")
    if not near.indptr[USER_AT + 1]:
        raise DataError(
            f"user '{user}' attends to nothing, so no edges explain its list: none of its pairs carries a message "
            "(data.min_message_weight, data.relations.NAME.messages)"
        )
    input_SE = run.input_rows(near.nodes)
    encoded = run.encode(near, input_SE)
    own_scores = run.model.own_scores(targets, run.store)
    score, saved_TR = score_of(run, near, encoded.rows_NR), run.representations(targets)
    names = NodeNames(run.saved, near.nodes)
    weight_LdH = edge_weights(encoded.alphas, near, USER_AT)
    drop_d, rows_dR = drops_of_edges(run, near, input_SE, weight_LdH, encoded.rows_NR, score)
    item_near, item_alphas = near, encoded.alphas
    if run.model.untimed == relation.target:  # as `encode` represents it
        item_near = near.without_times()
        item_alphas = encode_targets(run.model.encoder, item_near, input_SE, run.config.evaluate.edge_chunk).alphas
    by_drop = np.argsort(-np.nan_to_num(drop_d, nan=-np.inf), kind="stable")
    interactions = first_edges(weight_LdH, near, USER_AT, by_drop, top, names.are(relation.target), drop_d)
    others = first_edges(weight_LdH, near, USER_AT, by_drop, top, ~names.are(relation.target), drop_d)
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
        "counterfactual": counterfactual(run.saved, near, USER_AT, by_drop[:MOST_LISTS], rows_dR, item_node),
        "item_users": [
            {**names.of(place), **entry}
            for place, entry in heaviest_edges(item_alphas, item_near, ITEM_AT, top, names.are(relation.source))
        ],
        "fidelity": fidelity(run, near, input_SE, by_drop, heaviest_first(weight_LdH), score),
    }


class Dropped(NamedTuple):
    """drop_d: float64, what each edge of the user contributes; NaN beyond the `MOST_EDGES` with most attention.

    rows_dR: the ranking row of the user without each; 0 there.
    """

    drop_d: np.ndarray
    rows_dR: Tensor


def drops_of_edges(
    run: TrainedRun, near: Neighborhood, input_SE: Tensor, weight_LdH: Tensor, rows_TR: Tensor, score: float
) -> Dropped:
    """Of each edge of the user, in one batched pass."""
    chosen = np.sort(heaviest_first(weight_LdH)[:MOST_EDGES])
    depths, _ = encode_depths(run.model.encoder, near, input_SE, run.config.evaluate.edge_chunk)
    item_row_R = run.task.rows(run.model, rows_TR, near.nodes[: len(rows_TR)], run.store)[ITEM_AT]
    drop_d, rows_dR = np.full(weight_LdH.shape[1], np.nan), torch.zeros(weight_LdH.shape[1], len(item_row_R))
    drop_d[chosen], rows_dR[chosen] = contributions(run, near, depths, USER_AT, chosen, item_row_R, score)
    return Dropped(drop_d, rows_dR)


def fidelity(
    run: TrainedRun, near: Neighborhood, input_SE: Tensor, first: np.ndarray, heaviest: np.ndarray, score: float
) -> dict[str, Any]:  # fmt: skip
    """Drops of the score: without the `first` edges of the user, without the `heaviest`, and without as many random
    ones.

    At most half of the edges are deleted, so that random ones can differ from the first; a user with one interaction
    loses it in all cases, so that the drops are equal. `above_chance`: by more than two standard deviations.
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
    mean, std = float(np.mean(drops)), float(np.std(drops))
    top_drop, attention_drop = drop(first[:count]), drop(heaviest[:count])
    return {
        "deleted": count,
        "top_drop": top_drop,
        "attention_drop": attention_drop,
        "random_drop_mean": mean,
        "random_drop_std": std,
        "above_chance": top_drop > mean + 2 * std,
        "attention_above_chance": attention_drop > mean + 2 * std,
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
    """The `top` heaviest edges of a node from wanted ones; see `first_edges`."""
    weight_LdH = edge_weights(alphas, near, place)
    return first_edges(weight_LdH, near, place, heaviest_first(weight_LdH), top, are_wanted)


def first_edges(
    weight_LdH: Tensor, near: Neighborhood, place: int, order: np.ndarray, top: int, are_wanted: np.ndarray,
    drop_d: np.ndarray | None = None,
) -> list[tuple[int, dict[str, Any]]]:  # fmt: skip
    """The first edges of a node in some order from wanted ones, bool [S]: the neighbour's position; what `edge_facts`
    tells, `contribution` where it is known, `weight` and, for each layer and head, `layers`."""
    sources = near.indices[near.edges_of(place)]
    chosen = order[are_wanted[sources[order]]][:top]
    found = []
    for edge, entry in zip(chosen.tolist(), edge_facts(near, place, chosen), strict=True):
        weight_LH = weight_LdH[:, edge]
        if drop_d is not None:
            entry["contribution"] = None if np.isnan(drop_d[edge]) else float(drop_d[edge])
        entry |= {"weight": float(weight_LH.double().mean()), "layers": weight_LH.tolist()}
        found.append((int(sources[edge]), entry))
    return found


def users_behind(
    alphas: list[Tensor], near: Neighborhood, item_at: int, names: NodeNames, kind: str
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
    ranker = open_ranker(saved)
    best = pl.concat(ranker.recommend(ranker.users.require_texts([user]), 1))
    if best.is_empty():
        raise DataError(f"user '{user}' has met every item, so there is none to recommend; give one with --item")
    return best["item_id"][0]
