"""Recommendations for users whom training never saw, from what they have met and their columns, at once.

See `NewNodes`: a user of the graph with the same interactions and columns, and without an ID row, has the same
representation.

Shape legend: m interactions, R size of ranking rows, k columns of the filters, n users, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.evaluate.topk import RunningTopK, known_items
from dist_gat.filters.history_weights import decay, newer_in_history, rated
from dist_gat.filters.linear_filter import user_scale
from dist_gat.serve.new_items import NewItem
from dist_gat.serve.new_nodes import NewNodes, open_new_nodes
from dist_gat.serve.recommend import Ranker, open_ranker
from dist_gat.serve.saved_model import SavedModel


def recommend_new(
    model: SavedModel, histories: Sequence[History], k: int, progress: Callable[[str], None] = lambda message: None,
    new_items: Sequence[NewItem] = (),
) -> pl.DataFrame:  # fmt: skip
    """The K best items that each user has not met: user_id, item_id, score, rank[, title].

    A user without a history and columns gets the most popular items, whose score is their number of interactions; of a
    task that predicts, those of the best predictions without one. Which of them it is goes to `progress`. Raises
    `ConfigError` for a model that has no answer for new users.
    """
    new = open_new_users(model, k, new_items)
    empty = new.ranker.empty().with_columns(pl.col("user_id").cast(pl.String))
    without = [history.name for history in histories if not new.knows(history)]
    if without:
        by = "best predictions without a history" if new.ranker.scales else "most popular items"
        others = " and others" if len(without) > 3 else ""
        what = " and nothing else that the model reads" if new.nodes.columns[model.relation.source].names else ""
        progress(f"{', '.join(without[:3])}{others}: no interactions{what}, so the {by}")
    return pl.concat([empty, *new.recommend(histories)])


@dataclass(frozen=True)
class NewUsers:
    """A saved model that is ready for new users. edge_type: along which they attend to items."""

    ranker: Ranker
    nodes: NewNodes
    edge_type: int

    @property
    def model(self) -> SavedModel:
        return self.ranker.model

    def recommend(self, histories: Sequence[History]) -> Iterator[pl.DataFrame]:
        """Chunk by chunk."""
        for start in range(0, len(histories), self.ranker.chunk):
            chunk = histories[start : start + self.ranker.chunk]
            names = pl.Series("user_id", [history.name for history in chunk], dtype=pl.String)
            yield self.ranker.table_of(names, self._best(chunk))

    def best_items(self, histories: Sequence[History]) -> np.ndarray:
        """int64 [n, K]: nodes of the recommended items, -1 where there are fewer."""
        size = self.ranker.chunk
        chunks = [self._best(histories[start : start + size]) for start in range(0, len(histories), size)]
        return np.concatenate([best.items_UK for best in chunks])

    def _best(self, histories: Sequence[History]) -> RunningTopK:
        place = np.repeat(np.arange(len(histories)), [len(history.items) for history in histories])
        met = np.concatenate([np.zeros(0, np.int64), *(history.items for history in histories)])
        known = known_items(np.arange(len(histories)), [np.stack([place, met], axis=1)])
        best = RunningTopK(len(histories), self.ranker.k)
        by_popularity = np.array([not (self.ranker.scales or self.knows(history)) for history in histories])
        rows_nR = torch.cat([self.ranking_row(history) for history in histories])
        profile_nN = None
        if self.ranker.linear is not None:
            profile_nN = csr_array(vstack([self.profile(history) for history in histories]))
        for first, scores in self.ranker.score_blocks(rows_nR, profile_nN):
            if by_popularity.any():
                scores[by_popularity] = self.popularity(first, scores.shape[1])
            best.merge(0, scores, first, known)
        return best

    def knows(self, history: History) -> bool:
        """Whether something is known of a user: a column, or an interaction that carries messages."""
        return history.columns is not None or len(self.nodes.messages(self.edge_type, history).items) > 0

    def representation(self, history: History) -> Tensor:
        """[1, R] without own scores and biases."""
        return self.nodes.representation(self.model.relation.source, history.columns, {self.edge_type: history})

    def ranking_row(self, history: History) -> Tensor:
        """[1, R + k]: of the model and of the filters, as `Ranker.rows_of_users` gives those of known users."""
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

    def popularity(self, first: int, num: int) -> np.ndarray:
        """float32 [num]: the interactions of items, from the first on, see `Ranker.score_blocks`."""
        new, items = self.ranker.new, np.arange(first, first + num)
        if new is not None and first >= new.first:
            return new.degree_m[items - new.first].astype(np.float32)
        return self.nodes.degrees_of(items)[:, 0].astype(np.float32)


def open_new_users(model: SavedModel, k: int, new_items: Sequence[NewItem] = ()) -> NewUsers:
    """Raises `ConfigError` for a model that has no answer for new users, `StorageError` for a damaged one."""
    nodes = open_new_nodes(model)
    ways = [n for n, one in enumerate(nodes.schema.edge_types) if one.relation == model.relation and one.backward]
    if not ways:
        raise ConfigError(
            f"{model.folder}: {model.relation.name} carries no messages, so that nothing is known of a new user; set "
            "messages=true, prepare and train again"
        )
    return NewUsers(open_ranker(model, k, new_items), nodes, ways[0])
