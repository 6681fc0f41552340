"""Baselines through the same ranking and metrics: popularity and ItemKNN, on one machine.

ItemKNN: cosine similarity of item columns, each item keeping its `num_neighbors` most similar; a user's
score for an item is the sum over the user's items (Deshpande and Karypis, TOIS 2004).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array, vstack

from dist_gat.config import EvaluateConfig
from dist_gat.evaluate.ranking import ScoreBlock, rank_parts, ranking_metrics
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.ranges import USER

ITEM_ROWS = 2048


def evaluate_baseline(name: str, prepared: PreparedGraph, split: str, config: EvaluateConfig) -> dict[str, float]:
    """Metrics of one baseline on a split, trained on the training interactions."""
    interactions = interaction_matrix(prepared)
    score = popularity(interactions) if name == "popularity" else itemknn(interactions, config.itemknn_neighbors)

    def score_part(part: int, start: int, stop: int, first: int, last: int) -> np.ndarray:
        user = int(prepared.ranges.bounds[part, USER])
        return score(part, user + start, user + stop, first, last)

    parts = range(prepared.ranges.num_parts)
    rankings = rank_parts(prepared, parts, split, max(config.ks), config.user_chunk, score_part)
    return ranking_metrics(rankings, prepared, Channel("baseline"), split, config.ks)


def interaction_matrix(prepared: PreparedGraph) -> csr_array:
    """float32 [nodes, nodes]: 1 at (user, item) of each training interaction."""
    pairs = np.concatenate([part.edges["train"] for part in prepared.parts])
    shape = (prepared.ranges.num_nodes,) * 2
    return csr_array((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=shape)


def popularity(interactions: csr_array) -> ScoreBlock:
    """The number of training interactions of each item, the same for every user."""
    count = np.bincount(interactions.indices, minlength=interactions.shape[1]).astype(np.float32)
    return lambda part, start, stop, first, last: np.broadcast_to(count[first:last], (stop - start, last - first))


def itemknn(interactions: csr_array, num_neighbors: int) -> ScoreBlock:
    similarity = nearest_items(interactions, num_neighbors)
    cached: dict[tuple[int, int], csr_array] = {}

    def score(part: int, start: int, stop: int, first: int, last: int) -> np.ndarray:
        if (first, last) not in cached:
            cached.clear()
            cached[first, last] = similarity[:, first:last]
        return (interactions[start:stop] @ cached[first, last]).toarray()

    return score


def nearest_items(interactions: csr_array, num_neighbors: int) -> csr_array:
    """float32 [nodes, nodes]: cosine of item columns, the largest `num_neighbors` of each row, no diagonal."""
    norm = np.sqrt(np.bincount(interactions.indices, minlength=interactions.shape[1]))
    unit = interactions @ diags_array((1.0 / np.maximum(norm, 1.0)).astype(np.float32))
    columns = unit.T.tocsr()
    blocks = []
    for start in range(0, columns.shape[0], ITEM_ROWS):
        block = (columns[start : start + ITEM_ROWS] @ unit).tocoo()
        keep = block.row + start != block.col
        blocks.append(_largest_of_rows(block.row[keep], block.col[keep], block.data[keep], block.shape, num_neighbors))
    return vstack(blocks, format="csr")


def _largest_of_rows(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, int], count: int
) -> csr_array:
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    top = place < count
    return csr_array((value[top], (row[top], column[top])), shape=shape)
