"""Recommendations for users whom training never saw, from what they have met, at once.

A new user reads the graph as training left it: the trained layers run over one destination, whose sources are the items
of its history, and whose own row is 0, since it has no ID. A user of the graph with the same interactions and an ID row
of 0 has the same representation. The graph does not change: items hear of the user when it is prepared again.

Each user is computed alone, so whoever else is asked about changes no bit.

Shape legend: m interactions, E embedding size, R size of ranking rows, k columns of the filters, n users, N nodes,
K edge types that lead to one type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import MANIFEST
from dist_gat.checkpoints.weight_files import DENSE, load_tensors
from dist_gat.config.files import load_config
from dist_gat.config.sections import Config
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.evaluate.topk import RunningTopK, known_items
from dist_gat.filters.history_weights import decay, newer_in_history, rated
from dist_gat.filters.linear_filter import user_scale
from dist_gat.graph.schema import Schema, read_schema
from dist_gat.nn.decoder import Decoder
from dist_gat.nn.edge_terms import edge_kinds
from dist_gat.nn.encoder import Encoder, RunningCombination
from dist_gat.nn.pair_head import PairDecoder, PairHead
from dist_gat.sampling.block import Block
from dist_gat.sampling.edge_columns import padded_columns, read_columns
from dist_gat.sampling.hop_plan import silent_types
from dist_gat.serve.recommend import Ranker, open_ranker
from dist_gat.serve.saved_model import DEPTH, RANKING_ROWS, REMEDY, SavedModel
from dist_gat.tasks.task_heads import PREFIX


def recommend_new(
    model: SavedModel, histories: Sequence[History], k: int, progress: Callable[[str], None] = lambda message: None
) -> pl.DataFrame:
    """The K best items that each user has not met: user_id, item_id, score, rank[, title].

    A user without a history gets the most popular items, whose score is their number of interactions; of a task that
    predicts, those of the best predictions without one. Which of them it is goes to `progress`. Raises `ConfigError`
    for a model that has no answer for new users.
    """
    new = open_new_users(model, k)
    empty = new.ranker.empty().with_columns(pl.col("user_id").cast(pl.String))
    without = [history.name for history in histories if not new.hears(history)]
    if without:
        by = "best predictions without a history" if new.ranker.scales else "most popular items"
        progress(f"{', '.join(without[:3])}{' and others' if len(without) > 3 else ''}: no interactions, so the {by}")
    return pl.concat([empty, *new.recommend(histories)])


@dataclass(frozen=True)
class NewUsers:
    """A saved model that is ready for new users. edge_type: along which they attend to items. rows: of a name
    and part, degrees: of a part; each is read once."""

    ranker: Ranker
    config: Config
    schema: Schema
    encoder: Encoder
    decoder: Decoder
    head: PairHead | None
    edge_type: int
    rows: Callable[[str, int], Tensor]
    degrees: Callable[[int], np.ndarray]

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
        by_popularity = np.array([not (self.ranker.scales or self.hears(history)) for history in histories])
        rows_nR = torch.cat([self.ranking_row(history) for history in histories])
        profile_nN = None
        if self.ranker.linear is not None:
            profile_nN = csr_array(vstack([self.profile(history) for history in histories]))
        for first, scores in self.ranker.score_blocks(rows_nR, profile_nN):
            if by_popularity.any():
                items = np.arange(first, first + scores.shape[1])
                scores[by_popularity] = self.in_degree(items).astype(np.float32)
            best.merge(0, scores, first, known)
        return best

    def hears(self, history: History) -> bool:
        """Whether some of its interactions carry messages."""
        return len(self.messages(history).items) > 0

    def messages(self, history: History) -> History:
        """The interactions that carry messages, in the order of the graph: the newest first where these have times,
        then by item."""
        least, kept = self.config.data.min_message_weight, np.arange(len(history.items))
        if least is not None and history.weights is not None:
            kept = np.flatnonzero(history.weights >= least)
        has_time = self.schema.has_time[self.edge_type]
        by_time = -history.moments[kept] if has_time else np.zeros(len(kept), np.int64)
        return history.part(kept[np.lexsort((history.items[kept], by_time))])

    @torch.no_grad()
    def representation(self, history: History) -> Tensor:
        """[1, R] without own scores and biases."""
        heard = self.messages(history)
        own_1E = torch.zeros(1, self.config.model.embedding_size)
        block = self._block(heard)
        combination = RunningCombination(self.encoder)
        combination.add(own_1E)
        for number, layer in enumerate(self.encoder.layers):
            own_1E = layer(torch.cat([own_1E, self._gather(f"{DEPTH}{number}", heard.items)]), block).rows_DO
            combination.add(own_1E)
        assert combination.rows is not None, "there is an input"
        return combination.rows

    def _block(self, heard: History) -> Block:
        """The user's, source 0, and its items'."""
        count = np.array([len(heard.items)])
        stored = {"kind": np.full(len(heard.items), self.edge_type), "time": heard.moments}
        columns = self.schema.edge_types[self.edge_type].relation.columns
        if "weight" in columns:
            mean = self.model.manifest["new_users"]["weights"][self.model.relation.name]["mean"]
            unknown = np.full(len(heard.items), mean, np.float32)
            stored["weight"] = unknown if heard.weights is None else heard.weights
        if "time" not in columns:
            stored["time"] = np.zeros_like(heard.moments)
        edges = padded_columns(read_columns(stored, count, self.schema, self.encoder.edge_columns), count)
        degree_SK = None
        if self.encoder.needs_degree:
            own = np.zeros((1, self.degrees(0).shape[1]), np.int64)
            own[0, self.schema.slot_of[self.edge_type]] = len(heard.items)
            degree_SK = torch.from_numpy(np.concatenate([own, self._degrees(heard.items)]))
        near_1F = torch.arange(1, len(heard.items) + 1)[None]
        return Block(near_1F, torch.from_numpy(count), len(heard.items) + 1, degree_SK, edges=edges)

    @torch.no_grad()
    def ranking_row(self, history: History) -> Tensor:
        """[1, R + k]: of the model and of the filters, as `Ranker.rows_of_users` gives those of known users."""
        rows_1R, one = self.representation(history), torch.ones(1, dtype=torch.bool)
        if self.head is not None:
            rows_1R = PairDecoder(self.decoder, [self.head]).rows(rows_1R, one, ~one)
        else:
            rows_1R = self.decoder.ranking_rows(rows_1R)
            if self.decoder.has_own_scores:
                rows_1R = torch.cat([rows_1R, torch.ones(1, 1)], dim=1)
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
            scale[:, :num_spectral] = self._gather("filter_scale", items).numpy() ** 2
        rows_mk = self._gather("spectral", items).numpy() * scale
        row_1k = profile_1N.data[None] @ rows_mk * user_scale(profile_1N)[:, None]
        return torch.from_numpy(row_1k.astype(np.float32))

    def profile(self, history: History) -> csr_array:
        """float32 [1, N]: the weights of its interactions, as the filters have them."""
        values = np.ones(len(history.items), np.float32)
        if history.weights is not None:
            values = rated(history.weights.astype(np.float32), self.config.blend.edge_weights)
        newer = newer_in_history(np.zeros(len(history.items), np.int64), history.moments)
        values = values * decay(newer, self.model.manifest["half_life"])
        order = np.argsort(history.items)
        indptr = np.array([0, len(order)])
        return csr_array((values[order], history.items[order], indptr), shape=(1, self.model.ranges.num_nodes))

    def in_degree(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: of items, their interactions."""
        return self._degrees(nodes)[:, 0]

    def _degrees(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n, K]"""
        found = np.zeros((len(nodes), self.degrees(0).shape[1]), np.int64)
        for part, mine, at in self._by_part(nodes):
            found[mine] = self.degrees(part)[at]
        return found

    def _gather(self, name: str, nodes: np.ndarray) -> Tensor:
        """[n, columns]: saved rows of nodes."""
        rows = torch.empty(len(nodes), self.model.row_sizes[name])
        for part, mine, at in self._by_part(nodes):
            rows[torch.from_numpy(mine)] = self.rows(name, part)[torch.from_numpy(at)]
        return rows

    def _by_part(self, nodes: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Each part of some nodes, their places among these, and in the part."""
        part_of = self.model.ranges.part_of(nodes)
        found = []
        for part in np.unique(part_of).tolist():
            mine = np.flatnonzero(part_of == part)
            found.append((part, mine, nodes[mine] - int(self.model.ranges.starts[part])))
        return found


def open_new_users(model: SavedModel, k: int) -> NewUsers:
    """Raises `ConfigError` for a model that has no answer for new users, `StorageError` for a damaged one."""
    if "new_users" not in model.manifest:
        raise ConfigError(
            f"{model.folder}: saved before there were answers for new users; run `dist-gat train` with the recipe to "
            "write the model anew"
        )
    config = load_config(model.folder / "config.yaml")
    schema = read_schema(model.manifest, model.folder / MANIFEST, REMEDY)
    ways = [n for n, one in enumerate(schema.edge_types) if one.relation == model.relation and one.backward]
    if not ways:
        raise ConfigError(
            f"{model.folder}: {model.relation.name} carries no messages, so that nothing is known of a new user; set "
            "messages=true, prepare and train again"
        )
    dense, num_layers = load_tensors(model.folder / DENSE), len(config.sampling.fanouts)
    kinds = edge_kinds(schema, model.manifest["new_users"]["weights"], silent_types(schema, config.sampling))
    encoder = Encoder(config.model, num_layers, kinds)
    _load(encoder, dense, "encoder.", model)
    scored = [name for name, saved in model.manifest["pairs"].items() if saved["rows"] == RANKING_ROWS]
    head = None
    if scored:
        if any(name.startswith("head.experts.") for name in dense):
            raise ConfigError(f"{model.folder}: heads=experts has no answer for new users yet; take heads=alone")
        head = PairHead(encoder.representation_size)
        _load(head, dense, f"head.pairs.{PREFIX}{scored[0]}.", model)
    return NewUsers(
        open_ranker(model, k), config, schema, encoder.eval(), Decoder(config.model.decoder), head, ways[0],
        cache(lambda name, part: model.rows(part, name)), cache(model.degrees),
    )  # fmt: skip


def _load(module: torch.nn.Module, dense: dict[str, Tensor], start: str, model: SavedModel) -> None:
    own = {name.removeprefix(start): value for name, value in dense.items() if name.startswith(start)}
    try:
        module.load_state_dict(own)
    except RuntimeError as err:
        raise StorageError(f"{model.folder / DENSE}: not the weights of its recipe: {err}; {REMEDY}") from None
