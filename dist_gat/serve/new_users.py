"""Recommendations for users whom training never saw, from what they have met and their columns, at once.

See `NewNodes`: a user of the graph with the same interactions and columns, and without an ID row, has the same
representation.

Shape legend: m interactions, R size of ranking rows, k columns of the filters, n users, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from dist_gat.evaluate.new_user_metrics import History
from dist_gat.evaluate.topk import known_items
from dist_gat.filters.history_weights import decay, newer_in_history, rated
from dist_gat.filters.linear_filter import user_scale
from dist_gat.serve.new_columns import NewColumns
from dist_gat.serve.new_nodes import NewNodes, way_to_users
from dist_gat.serve.ranker import RankedUsers, Ranker, excluded_pairs
from dist_gat.serve.saved_model import SavedModel


@dataclass(frozen=True)
class NewUsers:
    """A saved model that is ready for new users. edge_type: along which they attend to items."""

    ranker: Ranker
    nodes: NewNodes
    edge_type: int

    @property
    def model(self) -> SavedModel:
        return self.ranker.model

    @property
    def columns(self) -> NewColumns:
        """Of users, with no notes yet."""
        return replace(self.nodes.columns[self.model.relation.source], notes=[])

    def best_items(self, histories: Sequence[History], k: int) -> np.ndarray:
        """int64 [n, K]: nodes of the recommended items, -1 where there are fewer."""
        size = self.ranker.chunk
        chunks = [histories[start : start + size] for start in range(0, len(histories), size)]
        return np.concatenate([self.ranker.best(self.ranked(chunk), k).items_UK for chunk in chunks])

    def ranked(
        self, histories: Sequence[History], filter_seen: bool = True, excluded: np.ndarray | None = None
    ) -> RankedUsers:
        """New users for the ranker; see `Ranker.known_users`."""
        if not histories:
            return self.ranker.known_users(np.zeros(0, np.int64))
        pairs = [excluded_pairs(len(histories), excluded)]
        if filter_seen:
            place = np.repeat(np.arange(len(histories)), [len(history.items) for history in histories])
            pairs.append(np.stack([place, np.concatenate([history.items for history in histories])], axis=1))
        profile_nN = None
        if self.ranker.linear is not None:
            profile_nN = csr_array(vstack([self.profile(history) for history in histories]))
        # the degrees of a private model have no noise, and its row of nobody has the noised counts
        is_private = self.model.manifest.get("privacy") is not None
        by_rows = bool(is_private or self.ranker.scales)
        by_popularity = np.array([not (by_rows or self.knows(history)) for history in histories], bool)
        rows_nR = torch.cat([self.ranking_row(history) for history in histories]).numpy()
        return RankedUsers(rows_nR, known_items(np.arange(len(histories)), pairs), profile_nN, by_popularity)

    def knows(self, history: History) -> bool:
        """Whether something is known of a user: a column, an edge, or an interaction that carries messages."""
        heard = [self.nodes.messages(self.edge_type, history), *history.others.values()]
        return history.columns is not None or any(len(one.items) for one in heard)

    def representation(self, history: History) -> Tensor:
        """[1, R] without own scores and biases."""
        neighbors = {**history.others, self.edge_type: history}
        return self.nodes.representation(self.model.relation.source, history.columns, neighbors)

    def ranking_row(self, history: History) -> Tensor:
        """[1, R + k]: of the model and of the filters, as `Ranker.rows_of_users` gives those of users of the graph."""
        rows_1R = self.nodes.ranking_row(self.representation(history))
        return torch.cat([rows_1R, self._filter_row(history)], dim=1)

    def _filter_row(self, history: History) -> Tensor:
        """[1, k]: d_u^-½ Σ_j r_uj d_j^-½ z_j with the items' rows z of the spectral filter, whose own d_j^¼ is in them
        twice; and d_u^-½ Σ_j -r_uj z_j with those of the deflation."""
        size = self.model.row_sizes["spectral"]
        if not size:
            return torch.zeros(1, 0)
        num_spectral, profile_1N = self.model.manifest["new_users"]["spectral_columns"], self.profile(history)
        items = profile_1N.indices.astype(np.int64)
        scale = np.full((len(items), size), -1.0, np.float32)
        if num_spectral:
            scale[:, :num_spectral] = self.nodes.gather("filter_scale", items).numpy() ** 2
        rows_mk = self.nodes.gather("spectral", items).numpy() * scale
        row_1k = profile_1N.data[None] @ rows_mk * user_scale(profile_1N)[:, None]
        return torch.from_numpy(row_1k.astype(np.float32))

    def profile(self, history: History) -> csr_array:
        """float32 [1, N]: the weights of its interactions, as the filters have them."""
        values = np.ones(len(history.items), np.float32)
        if history.weights is not None:
            values = rated(history.weights.astype(np.float32), self.nodes.config.blend.edge_weights)
        newer = newer_in_history(np.zeros(len(history.items), np.int64), history.moments)
        values = values * decay(newer, self.model.manifest["half_life"])
        order = np.argsort(history.items)
        indptr = np.array([0, len(order)])
        return csr_array((values[order], history.items[order], indptr), shape=(1, self.model.ranges.num_nodes))


def open_new_users(ranker: Ranker, nodes: NewNodes) -> NewUsers:
    """Raises `ConfigError` for a model that has no answer for new users."""
    return NewUsers(ranker, nodes, way_to_users(nodes))
