"""Values of given pairs, over sharded representations: exact, in bounded memory, the same on any number of ranks.

Shape legend: O own nodes, R representation size, m pairs of a split, n pairs of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.inference import fetch_rows, infer_representations, padded
from dist_gat.exchange.route import share_rows
from dist_gat.exchange.worker import Worker
from dist_gat.graph.schema import Relation
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.graph_store import GraphStore

PAIRS_PER_CHUNK = 1 << 16
NOTHING = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class PairValues:
    """Of all pairs of a split, in the order of the parts: pairs int64 [m, 2], labels and values float64 [m]."""

    pairs: np.ndarray
    labels: np.ndarray
    values: np.ndarray


def infer_pair_values(
    model: Recommender, store: GraphStore, worker: Worker, relation: Relation, split: str, edge_chunk: int
) -> PairValues:
    """What the model says of each pair of a split. Collective; the same on every rank."""
    rows_OR = infer_representations(model, store, edge_chunk)
    parts = [store.prepared.parts[part] for part in store.own_parts]
    # chunks are cut inside parts, so that a pair is computed by the same operations on any number of ranks
    chunks = [
        pairs[start : start + PAIRS_PER_CHUNK]
        for pairs in (part.pairs(relation, split) for part in parts)
        for start in range(0, len(pairs), PAIRS_PER_CHUNK)
    ]
    values = [
        chunk_values(model, rows_OR, np.asarray(chunk), store, worker) for chunk in padded(chunks, NOTHING, worker.rows)
    ]
    labels = np.concatenate([part.labels(relation, split) for part in parts])
    pairs = np.concatenate([part.pairs(relation, split) for part in parts])
    shared = (
        share_rows(torch.from_numpy(np.ascontiguousarray(own)), worker.control).numpy()
        for own in (pairs, labels.astype(np.float64), torch.cat([rows_OR.new_zeros(0), *values]).double().cpu().numpy())
    )
    return PairValues(*shared)


@torch.no_grad()
def chunk_values(
    model: Recommender, rows_OR: Tensor, pairs: np.ndarray, store: GraphStore, worker: Worker
) -> Tensor:  # fmt: skip
    """[n]: of int64 [n, 2] pairs whose sources this rank owns. Collective."""
    ownership = store.ownership
    targets, place = np.unique(pairs[:, 1], return_inverse=True)
    target_rows = fetch_rows(rows_OR, torch.from_numpy(targets), ownership, worker.rows)
    at = torch.from_numpy(pairs[:, 0] - ownership.first_node).to(rows_OR.device)
    target_at = torch.from_numpy(place).to(rows_OR.device)
    return model.pair_values(rows_OR.index_select(0, at), target_rows.index_select(0, target_at))
