"""Spectral filter: a closed-form smoother of the interaction graph, as one more row per node.

With A = D_U^-¼ R D_I^-¼ = Σ_k σ_k p_k q_kᵀ, score(u, i) = d_u^-½ Σ_j r_uj d_j^-¼ Σ_k q_jk h(σ_k) q_ik d_i^¼ over the
items j of u, with h(σ) = σ² / (σ² + ridge σ_1²): ridge regression of the interactions on each other, which passes what
is common to many and damps what is noise. With full rank and plain counts it would be EASE without its zero diagonal
(Steck, WWW 2019); with a step instead of h, the ideal low-pass filter of GF-CF (Shen et al., CIKM 2021). Both factors
are rows, so ranking needs only inner products.

R may have the weights of `HistoryWeights`. A half-life is in the profiles r_u and their sums d_u alone, and A is
without it: on MovieLens-100K, leave-last-out, validation, with 256 columns and a half-life of 5, NDCG@20 is .131, and
.086 where A has it too. The linear filter is the better for having it everywhere.

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


class SpectralFilter:
    """The smooth directions of the graph, found once, and rows of users for any half-life.

    neighbors: see `OwnGraph`; without half-life. Collective.
    """

    def __init__(
        self, store: GraphStore, worker: Worker, relation: Relation, rank: int, ridge: float, edge_chunk: int,
        seed: int, neighbors: OwnNeighbors | None = None,
    ) -> None:  # fmt: skip
        self.graph = OwnGraph(store, worker, relation, edge_chunk, 0.25, neighbors)
        self.basis_Ok, squares_k = leading_directions(self.graph, rank, seed)
        gain_k = np.sqrt(squares_k / np.maximum(squares_k + ridge * squares_k[:1], NOTHING))
        self.basis_Ok *= torch.from_numpy(gain_k.astype(np.float32))

    def rows(self, recent: OwnNeighbors | None = None) -> Tensor:
        """float32 [O, rank]: rows of this rank's nodes whose inner products are the scores. Collective.

        recent: the neighbours with the half-life, where there is one. Where the graph has fewer directions, the last
        columns are 0. The same bits on any number of ranks.
        """
        graph, profiles, basis_Ok = self.graph, self.graph, self.basis_Ok
        if recent is not None:
            profiles = OwnGraph(graph.store, graph.worker, graph.relation, graph.edge_chunk, 0.25, recent)
            # `sum_neighbors` scales by the items' degrees with the half-life, and those without count
            basis_Ok = basis_Ok * (graph.scale_O1 / profiles.scale_O1)
        user_rows = profiles.sum_neighbors(basis_Ok, graph.relation.source) * profiles.scale_O1
        return torch.where(graph.is_of_type(graph.relation.target)[:, None], self.basis_Ok / graph.scale_O1, user_rows)
