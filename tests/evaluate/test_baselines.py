"""Baselines against naive computations."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import split_pairs

from dist_gat.config import EvaluateConfig
from dist_gat.evaluate.baselines import evaluate_baseline, interaction_matrix, nearest_items
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.ranges import USER

CONFIG = EvaluateConfig(ks=[5], user_chunk=9, itemknn_neighbors=6)


def naive_recall(prepared: PreparedGraph, scores: np.ndarray) -> float:
    """Recall@5 on test of a dense [nodes, nodes] score matrix, ties by item ID."""
    is_item = prepared.ranges.type_of(np.arange(prepared.ranges.num_nodes)) != USER
    met = {tuple(pair) for split in ("train", "valid") for pair in split_pairs(prepared, split).tolist()}
    truth: dict[int, set[int]] = {}
    for user, item in split_pairs(prepared, "test").tolist():
        truth.setdefault(user, set()).add(item)
    recalls = []
    for user, items in truth.items():
        free = [int(item) for item in np.flatnonzero(is_item) if (user, int(item)) not in met]
        best = sorted(free, key=lambda item: (-scores[user, item], item))[:5]
        recalls.append(len(items & set(best)) / len(items))
    return float(np.mean(recalls))


def test_popularity_ranks_by_training_count(synthetic: PreparedGraph) -> None:
    count = np.bincount(split_pairs(synthetic, "train")[:, 1], minlength=synthetic.ranges.num_nodes)
    scores = np.broadcast_to(count, (len(count), len(count)))
    found = evaluate_baseline("popularity", synthetic, "test", CONFIG)
    assert found["recall@5"] == pytest.approx(naive_recall(synthetic, scores))


def test_itemknn_sums_the_nearest_cosines(synthetic: PreparedGraph) -> None:
    matrix = interaction_matrix(synthetic).toarray().astype(np.float64)
    norm = np.linalg.norm(matrix, axis=0)
    cosine = (matrix.T @ matrix) / np.maximum(np.outer(norm, norm), 1e-12)
    np.fill_diagonal(cosine, 0)
    nearest = nearest_items(interaction_matrix(synthetic), 6).toarray()
    for item in range(len(cosine)):
        order = sorted(range(len(cosine)), key=lambda other: (-round(cosine[item, other], 6), other))[:6]
        kept = np.zeros(len(cosine))
        kept[order] = cosine[item, order]
        np.testing.assert_allclose(np.sort(nearest[item]), np.sort(kept), atol=1e-6)
    found = evaluate_baseline("itemknn", synthetic, "test", CONFIG)
    assert found["recall@5"] == pytest.approx(naive_recall(synthetic, matrix @ nearest), abs=0.01)
