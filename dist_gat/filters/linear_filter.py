"""`LinearFilter`: scores of items by what users with common items have met, exactly and part by part.

score(u, i) = Σ_j Σ_v r_uj r_vj r_vi / (d_v sqrt(d_u d_j d_i)) over the items j of u and the users v that have met j and
i: the row of u in D_U^-½ R P̃ with P̃ = R̃ᵀR̃ and R̃ = D_U^-½ R D_I^-½, the linear filter of GF-CF (Shen et al., CIKM
2021). R has the weights of `HistoryWeights`, 1 for each interaction where nothing else is set; degrees d are its sums.
It is local where embeddings are smooth, which is why the two together rank better than either.

Still, most of its score lies along the leading directions q of P̃ = Σ_k σ_k² q_k q_kᵀ, which many users share and which
a smooth score beside it already has. Deflation leaves them out: the row of u in D_U^-½ R (P̃ - Σ_k<j σ_k² q_k q_kᵀ).

Shape legend: U users of a part, n users that are asked about, m items of a block, N nodes, O own nodes, j directions.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from dist_gat.exchange.long_work import Steps, plain_steps
from dist_gat.exchange.worker import Worker
from dist_gat.filters.leading_directions import OwnGraph, leading_directions
from dist_gat.filters.own_neighbors import OwnNeighbors, nothing_as_one
from dist_gat.filters.user_items import UserItems
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

# items of a block; its columns are a matrix [all items, items of the block], for which all user items are read
FILTER_BLOCK = 4096


class LinearFilter:
    """profiles: the user items of every part, as `training_items` gives them; they are read again for each block.

    kept: those of this rank's parts. steps: of a worker, to stop when asked to.
    """

    def __init__(
        self, profiles: UserItems, num_parts: int, num_nodes: int, steps: Steps = plain_steps,
        own_parts: Collection[int] = (),
    ) -> None:  # fmt: skip
        self.profiles, self.num_parts, self.steps = profiles, num_parts, steps
        self.kept: dict[int, csr_array] = {}
        degree_N = np.zeros(num_nodes)
        for part in steps("degrees of the linear filter", range(num_parts), num_parts):
            profile_UN = profiles(part)
            degree_N += np.bincount(profile_UN.indices, profile_UN.data, minlength=num_nodes)
            if part in own_parts:
                self.kept[part] = profile_UN
        self.item_scale_N = (nothing_as_one(degree_N) ** -0.5).astype(np.float32)

    def columns(self, first: int, last: int) -> csr_array:
        """float32 [N, m]: the columns of P̃ of the item nodes [first, last)."""
        total = csr_array((len(self.item_scale_N), last - first), dtype=np.float32)
        for part in self.steps("a block of the linear filter", range(self.num_parts), self.num_parts):
            profile_UN = self.profiles(part)
            among_Um = profile_UN[:, first:last]
            total += profile_UN.T @ (diags_array(user_scale(profile_UN) ** 2) @ among_Um)
        return csr_array(diags_array(self.item_scale_N) @ total @ diags_array(self.item_scale_N[first:last]))

    def scores(self, profile_nN: csr_array, columns_Nm: csr_array) -> np.ndarray:
        """float32 [n, m]: scores of users with these training items for the items of these `columns`."""
        return np.asarray((diags_array(user_scale(profile_nN)) @ (profile_nN @ columns_Nm)).toarray())


class LinearTerm:
    """A `ScoreTerm`: weight times the filter's scores of this rank's users."""

    block_size = FILTER_BLOCK

    def __init__(self, linear: LinearFilter, weight: float, store: GraphStore, relation: Relation) -> None:
        self.linear, self.weight = linear, np.float32(weight)
        self.first_user = {part: store.ranges.nodes_of_type(part, relation.source).start for part in store.own_parts}
        self.columns_Nm: csr_array | None = None

    def next_block(self, first: int, last: int) -> None:
        self.columns_Nm = self.linear.columns(first, last)

    def scores(self, part: int, users: np.ndarray) -> np.ndarray:
        assert self.columns_Nm is not None, "a block comes before its scores"
        return self.weight * self.linear.scores(self.linear.kept[part][users - self.first_user[part]], self.columns_Nm)


def deflation_rows(
    store: GraphStore, worker: Worker, relation: Relation, rank: int, edge_chunk: int, seed: int,
    neighbors: OwnNeighbors | None = None,
) -> Tensor:  # fmt: skip
    """float32 [O, rank]: rows of own nodes whose inner products, added to the filter's scores, deflate it.

    neighbors: see `OwnGraph`. Collective.
    """
    graph = OwnGraph(store, worker, relation, edge_chunk, 0.5, neighbors)
    basis_Ok, squares_k = leading_directions(graph, rank, seed)
    basis_Ok *= torch.from_numpy(np.sqrt(squares_k).astype(np.float32))
    # D_U^-½ R q doesn't scale by the items' degrees, which `sum_neighbors` does
    user_rows = graph.sum_neighbors(basis_Ok / graph.scale_O1, relation.source)
    return torch.where(graph.is_of_type(relation.target)[:, None], -basis_Ok, user_rows)


def user_scale(profile_UN: csr_array) -> np.ndarray:
    """float32 [U]: d_u^-½, and 1 for a user without interactions."""
    row = np.repeat(np.arange(profile_UN.shape[0]), np.diff(profile_UN.indptr))
    return (nothing_as_one(np.bincount(row, profile_UN.data, profile_UN.shape[0])) ** -0.5).astype(np.float32)
