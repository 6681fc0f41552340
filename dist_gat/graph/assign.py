"""Strategies that assign nodes to parts: `metis`, `range`, `hash`.

Raw node numbers here are users 0 to U-1, then items U to U+I-1. Each strategy returns int64 [U + I].
"""

from __future__ import annotations

import numpy as np

from dist_gat.config import PartsConfig
from dist_gat.data.dataset import Edges
from dist_gat.dgl import metis_assignment
from dist_gat.random import Purpose, hash_ids, make_key


def assign_nodes(train: Edges, num_users: int, num_items: int, config: PartsConfig, seed: int) -> np.ndarray:
    """The part of every raw node, by the configured strategy, from training interactions alone."""
    num_nodes = num_users + num_items
    if config.num_parts == 1:
        return np.zeros(num_nodes, dtype=np.int64)
    if config.method == "hash":
        key = make_key(seed, Purpose.ASSIGNMENT)
        return (hash_ids(key, np.arange(num_nodes)) % np.uint64(config.num_parts)).astype(np.int64)
    item = train.item + num_users
    if config.method == "range":
        degree = np.bincount(np.concatenate([train.user, item]), minlength=num_nodes)
        return np.concatenate(
            [even_ranges(degree[:num_users], config.num_parts), even_ranges(degree[num_users:], config.num_parts)]
        )
    dst, src = np.concatenate([train.user, item]), np.concatenate([item, train.user])
    return metis_assignment(dst, src, num_nodes, config.num_parts).astype(np.int64)


def even_ranges(degree: np.ndarray, num_parts: int) -> np.ndarray:
    """Cut nodes 0 to N-1 into contiguous runs of about equal (degree + 1) sums; int64 [N]."""
    weight = np.cumsum(degree + 1)
    return np.minimum((weight - 1) * num_parts // max(int(weight[-1]) if len(weight) else 1, 1), num_parts - 1)
