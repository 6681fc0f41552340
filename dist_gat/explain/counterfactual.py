"""What the list of recommendations would be without one of a user's edges.

The user is computed again without the edge, as for its contribution, and all items are ranked again: exactly, against
their saved rows, without those that the user has met. The item of the edge stays out of the list, for the user has met
it; at which place it would come back is told apart. Filters that the recipe blends in keep their share of every score.

Shape legend: n lists of the user, I items, d edges of the user, R representation size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dist_gat.explain.neighborhood import Neighborhood
from dist_gat.explain.node_names import NodeNames
from dist_gat.serve.ranker import open_ranker
from dist_gat.serve.saved_model import RANKING_ROWS, SavedModel

LENGTH = 10


def counterfactual(
    saved: SavedModel, near: Neighborhood, place: int, edges: np.ndarray, rows_dR: Tensor, item_node: int
) -> dict[str, Any]:
    """The user's `list` of new items, `place`, that of the explained one among them, and `without`, the same without
    each of some edges of the user: the neighbour, `relation`, `place`, the items that `enter` and `leave` the list, and
    for an item its `own_place`, where it would come back.

    rows_dR: the ranking row of the user without each of its edges. `keeps_filters`: whether filters are blended in.
    """
    lists = rank_without(saved, int(near.nodes[place]), rows_dR[edges])
    own = lists.first(0)
    lists_without = [lists.first(row) for row in range(1, 1 + len(edges))]
    own_edges = near.edges_of(place)
    sources, kinds = near.nodes[near.indices[own_edges][edges]], near.stored["kind"][own_edges][edges]
    names = NodeNames(saved, np.unique(np.concatenate([own, sources, *lists_without])))

    def named(nodes: np.ndarray) -> list[dict[str, Any]]:
        return [names.of_node(node) for node in nodes.tolist()]

    without = []
    for row, (source, kind, after) in enumerate(zip(sources.tolist(), kinds.tolist(), lists_without, strict=True), 1):
        entry = {
            **names.of_node(source),
            "relation": near.schema.edge_types[kind].relation.name,
            "place": lists.place_of(row, item_node),
            "enter": named(after[~np.isin(after, own)]),
            "leave": named(own[~np.isin(own, after)]),
        }
        if source in lists.items_I:
            entry["own_place"] = lists.place_of(row, source)
        without.append(entry)
    keeps_filters = any(saved.manifest["blend"].values())
    return {
        "list": named(own),
        "place": lists.place_of(0, item_node),
        "keeps_filters": keeps_filters,
        "without": without,
    }


@dataclass(frozen=True)
class Lists:
    """Rankings of all items. items_I: int64, item nodes, ascending. scores_nI: float32. met: what no list has."""

    items_I: np.ndarray
    scores_nI: np.ndarray
    met: np.ndarray

    def first(self, row: int) -> np.ndarray:
        """The item nodes of a list, the best first; equal scores are ordered by node, as in `recommend`."""
        ranked = self.items_I[np.argsort(-self.scores_nI[row], kind="stable")]
        return ranked[~np.isin(ranked, self.met)][:LENGTH]

    def place_of(self, row: int, item: int) -> int:
        """The place of an item, from 1, among those that the user has not met; of a met one, where it would be."""
        scores = self.scores_nI[row]
        score = scores[np.searchsorted(self.items_I, item)]
        is_ahead = (scores > score) | ((scores == score) & (self.items_I < item))
        return 1 + int((is_ahead & ~np.isin(self.items_I, self.met)).sum())


def rank_without(saved: SavedModel, user: int, rows_nR: Tensor) -> Lists:
    """The lists of a user node: the saved one, then one for each ranking row that the user would have instead."""
    ranker = open_ranker(saved)
    users = ranker.known_users(np.full(1 + len(rows_nR), user))
    users.rows_nR[1:, : saved.row_sizes[RANKING_ROWS]] = rows_nR.numpy()
    blocks = list(ranker.score_blocks(users))
    items = [np.arange(first, first + scores.shape[1]) for first, scores in blocks]
    scores_nI = np.concatenate([scores for _, scores in blocks], axis=1)
    return Lists(np.concatenate(items), scores_nI, np.unique(users.known.items))
