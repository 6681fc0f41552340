"""Ranking metrics at K with binary relevance, per user.

For a user with relevant items T and ranked items i_1 … i_K (hits h_j = [i_j in T]):
recall Σh/|T|, precision Σh/K, hit_rate [Σh > 0], mrr 1/rank of the first hit (0 without one),
ndcg Σ h_j / log2(j + 1) over Σ_{j ≤ min(K, |T|)} 1 / log2(j + 1) (Järvelin and Kekäläinen 2002).
The mean over users with at least one relevant item is the metric of a data set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dist_gat.config.task_sections import RANKING_METRICS


def metric_names(ks: Sequence[int]) -> list[str]:
    return [f"{name}@{k}" for k in ks for name in RANKING_METRICS]


def user_metrics(hits_UK: np.ndarray, num_relevant_U: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """float64 [U, len(metric_names(ks))]; hits_UK: bool [U, K] with K ≥ max(ks), num_relevant_U ≥ 1."""
    columns = []
    discount = 1.0 / np.log2(np.arange(2, hits_UK.shape[1] + 2))
    for k in ks:
        hits = hits_UK[:, :k]
        count = hits.sum(axis=1)
        ideal = np.cumsum(discount)[np.minimum(num_relevant_U, k) - 1]
        first = np.where(count > 0, 1.0 / (hits.argmax(axis=1) + 1), 0.0)
        values = {
            "recall": count / num_relevant_U,
            "precision": count / k,
            "ndcg": (hits * discount[:k]).sum(axis=1) / ideal,
            "mrr": first,
            "hit_rate": (count > 0).astype(np.float64),
        }
        columns += [values[name] for name in RANKING_METRICS]
    return np.stack(columns, axis=1)


def find_hits(users_U: np.ndarray, items_UK: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which ranked items are relevant: bool [U, K], and how many relevant items each user has, int64 [U].

    truth: int64 [m, 2] (user, item) node IDs, sorted.
    """
    count = np.searchsorted(truth[:, 0], users_U, side="right") - np.searchsorted(truth[:, 0], users_U)
    # one integer a pair, so that membership is a single sorted look-up
    span = int(max(items_UK.max(initial=0), truth[:, 1].max(initial=0))) + 1
    pairs = users_U[:, None] * span + items_UK
    wanted = truth[:, 0] * span + truth[:, 1]
    place = np.minimum(np.searchsorted(wanted, pairs), max(len(wanted) - 1, 0))
    found = wanted[place] == pairs if len(wanted) else np.zeros(pairs.shape, dtype=bool)
    return found & (items_UK >= 0), count
