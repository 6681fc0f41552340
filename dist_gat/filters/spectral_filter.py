"""Spectral filter: a closed-form smoother of the interaction graph, as one more row per node.

With A = D_U^-¼ R D_I^-¼ = Σ_k σ_k p_k q_kᵀ, score(u, i) = d_u^-½ Σ_j r_uj d_j^-¼ Σ_k q_jk h(σ_k) q_ik d_i^¼ over the
items j of u, with h(σ) = σ² / (σ² + ridge σ_1²): ridge regression of the interactions on each other, which passes what
is common to many and damps what is noise. With full rank and plain counts it would be EASE without its zero diagonal
(Steck, WWW 2019); with a step instead of h, the ideal low-pass filter of GF-CF (Shen et al., CIKM 2021). Both factors
are rows, so ranking needs only inner products. R has the weights of `HistoryWeights`, where any is set.

Shape legend: O own nodes, k columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dist_gat.exchange.worker import Worker
from dist_gat.filters.leading_directions import NOTHING, OwnGraph, leading_directions
from dist_gat.filters.own_neighbors import OwnNeighbors
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore


def spectral_rows(
    store: GraphStore, worker: Worker, relation: Relation, rank: int, ridge: float, edge_chunk: int, seed: int,
    neighbors: OwnNeighbors | None = None,
) -> Tensor:  # fmt: skip
    """float32 [O, rank]: rows of this rank's nodes whose inner products are the scores. Collective.

    neighbors: see `OwnGraph`. Where the graph has fewer directions, the last columns are 0. The same bits on any
    number of ranks.
    """
    graph = OwnGraph(store, worker, relation, edge_chunk, 0.25, neighbors)
    basis_Ok, squares_k = leading_directions(graph, rank, seed)
    gain_k = np.sqrt(squares_k / np.maximum(squares_k + ridge * squares_k[:1], NOTHING))
    basis_Ok *= torch.from_numpy(gain_k.astype(np.float32))
    user_rows = graph.sum_neighbors(basis_Ok, relation.source) * graph.scale_O1
    return torch.where(graph.is_of_type(relation.target)[:, None], basis_Ok / graph.scale_O1, user_rows)
