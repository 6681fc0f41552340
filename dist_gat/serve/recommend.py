"""Recommendations from a saved model: the best new items of a user, in external IDs."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.data.vocabulary import parse_id
from dist_gat.evaluate.topk import Known, RunningTopK, known_items
from dist_gat.filters.linear_filter import LinearFilter
from dist_gat.serve.pair_scale import open_scales
from dist_gat.serve.saved_model import RANKING_ROWS, SavedModel


def recommend_items(model: SavedModel, users: list[str], k: int) -> pl.DataFrame:
    """The K best items that each user has not met: user_id, item_id, score, rank[, title].

    The score of a task that predicts ratings, clicks or counts is the prediction.

    users: external IDs as text; they are read as the type that the data set has. Raises `DataError` for an
    unknown one.
    """
    if k < 1:
        raise ConfigError(f"k={k}: expected a positive number of items a user")
    user_ids, item_ids = model.ids(model.relation.source), model.ids(model.relation.target)
    wanted = [parse_id(user, user_ids["external_id"]) for user in users]
    node_of = dict(zip(user_ids["external_id"], user_ids["node_id"], strict=True))
    nodes = np.array([node_of[user] for user in wanted], dtype=np.int64)
    rows_nR, known = _rows_of_users(model, nodes)
    linear, companions = None, []
    if model.linear_weight:
        linear = LinearFilter(model.user_items, model.ranges.num_parts, model.ranges.num_nodes)
        companions = linear.companions(_profiles_of_users(model, nodes))
    best = RunningTopK(len(nodes), k)
    for part in range(model.ranges.num_parts):
        items = model.ranges.nodes_of_type(part, model.relation.target)
        start = items.start - int(model.ranges.starts[part])
        block = model.ranking_rows(part)[start : start + len(items)]
        scores = (rows_nR @ block.T).float().numpy()
        if linear is not None:
            scores += np.float32(model.linear_weight) * linear.scores_of_users(companions, items.start, items.stop)
        best.merge(0, scores, items.start, known)
    found = best.items_UK >= 0
    scores = best.scores_UK[found].astype(np.float64)
    for scale in open_scales(model).values():
        if scale.rows == RANKING_ROWS:
            scores = scale.predictions([scale.values(scores)])
    row, column = np.nonzero(found)
    table = pl.DataFrame(
        {
            "user_id": pl.Series(wanted, dtype=user_ids["external_id"].dtype).gather(row),
            "node_id": best.items_UK[found],
            "score": scores,
            "rank": column + 1,
        }
    ).join(item_ids.rename({"external_id": "item_id"}), on="node_id", how="left", maintain_order="left")
    columns = ["user_id", "item_id", "score", "rank", *(["title"] if "title" in item_ids.columns else [])]
    return table.select(columns)


def _rows_of_users(model: SavedModel, nodes: np.ndarray) -> tuple[Tensor, Known]:
    """Ranking rows [n, R + k] and known items of user nodes, read from their parts."""
    rows_nR = torch.zeros(len(nodes), model.manifest["representation_size"] + model.manifest["spectral_rank"])
    pairs = []
    for part in np.unique(model.ranges.part_of(nodes)):
        rows, known = model.ranking_rows(part), model.known(part)
        first_user = model.ranges.nodes_of_type(part, model.relation.source).start
        for place in np.flatnonzero(model.ranges.part_of(nodes) == part):
            user = int(nodes[place]) - first_user
            rows_nR[place] = rows[int(nodes[place]) - int(model.ranges.starts[part])]
            met = known.items[known.indptr[user] : known.indptr[user + 1]]
            pairs.append(np.stack([np.full(len(met), place), met], axis=1))
    return rows_nR, known_items(np.arange(len(nodes)), pairs)


def _profiles_of_users(model: SavedModel, nodes: np.ndarray) -> csr_array:
    """float32 [n, N]: the training interactions of user nodes. Each part is read once."""
    part_of = model.ranges.part_of(nodes)
    profiles = {part: model.user_items(part) for part in np.unique(part_of).tolist()}
    rows: list[Any] = [
        profiles[part][[node - model.ranges.nodes_of_type(part, model.relation.source).start], :]
        for node, part in zip(nodes.tolist(), part_of.tolist(), strict=True)
    ]
    nothing = csr_array((0, model.ranges.num_nodes), dtype=np.float32)
    return csr_array(vstack([nothing, *rows]))
