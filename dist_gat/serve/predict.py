"""Predictions of given pairs, from a saved model alone.

Shape legend: n pairs, R representation size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.files import load_config
from dist_gat.data.bad_rows import NUM_EXAMPLES, shown
from dist_gat.data.values import is_id_type
from dist_gat.graph.ranges import NodeRanges
from dist_gat.kernels.copy_rows import copy_rows
from dist_gat.kernels.threads import cut, in_threads
from dist_gat.serve.saved_model import SavedModel
from dist_gat.tasks.pair_task import build_likelihood, calibrated

Unknown = Literal["error", "null"]
COLUMNS = ("user_id", "item_id")
PREDICTION = "prediction"
BATCH = 1 << 17
# rows of two nodes stay in the processor's cache until they are multiplied
CHUNK = 1 << 13


def predict_pairs(model: SavedModel, pairs: pl.DataFrame, unknown: Unknown = "error") -> pl.DataFrame:
    """The rows of `pairs`, which has the columns user_id and item_id, with a column `prediction` more.

    In the unit of the labels: a rating, a probability, an expected count. Raises `ConfigError` for a model that ranks,
    `DataError` for an ID that training never saw, unless `unknown` is null: then the prediction is null.
    """
    predictor = open_predictor(model)
    check_columns("the table of pairs", pairs.columns)
    ids = pairs.select(COLUMNS)
    found = [
        predictor.predict(ids.slice(start, BATCH), "the table of pairs", start + 1, unknown)
        for start in range(0, len(pairs), BATCH)
    ]
    return pairs.with_columns(pl.concat([pl.Series(PREDICTION, dtype=pl.Float64), *found]))


def check_columns(where: str, columns: list[str]) -> None:
    """Raise `DataError` unless there are user_id and item_id, and room for `prediction`."""
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{where}: no column {' and '.join(missing)}; found {', '.join(map(shown, columns))}; "
            f"expected the columns {' and '.join(COLUMNS)}: rename them"
        )
    if PREDICTION in columns:
        raise DataError(f"{where}: there is a column {PREDICTION} already; rename or remove it")


@dataclass(frozen=True)
class NodeIndex:
    """External IDs of one type, ascending, and the node of each."""

    kind: str
    external_ids: pl.Series
    nodes: np.ndarray

    def find(self, wanted: pl.Series, where: str) -> np.ndarray:
        """int64 [n]: nodes, -1 for an unknown ID. Raises `DataError` for a column that has no IDs."""
        dtype = self.external_ids.dtype
        if not (is_id_type(wanted.dtype) or wanted.dtype == pl.Null):
            raise DataError(f"{where}: {wanted.name} has the type {wanted.dtype}; expected IDs, numbers or text")
        ids = wanted.cast(dtype, strict=False)
        if wanted.dtype.is_float() and dtype.is_integer():
            # a cast would cut off what stands behind the point
            ids = ids.set(ids.cast(wanted.dtype) != wanted, None)
        places = self.external_ids.search_sorted(ids).to_numpy().astype(np.int64)
        places = places.clip(max=len(self.external_ids) - 1)
        is_known = (self.external_ids.gather(places) == ids).fill_null(False).to_numpy()
        return np.where(is_known, self.nodes[places], -1)


@dataclass(frozen=True)
class PairPredictor:
    """A saved model that is ready to predict one batch after another, each pair for itself.

    rows: of each part, float32 [nodes of the part, R]: views of the model's files, which the system reads where they
    are used. scale: from products of rows to the unit of the labels.
    """

    users: NodeIndex
    items: NodeIndex
    ranges: NodeRanges
    rows: list[np.ndarray]
    scale: Callable[[np.ndarray], np.ndarray]

    def predict(self, pairs: pl.DataFrame, where: str, first_row: int, unknown: Unknown) -> pl.Series:
        """Float64 [n], from the columns user_id and item_id. first_row: the number of the first, for messages.

        Raises `DataError` for an ID that training never saw, unless `unknown` is null: then the prediction is null.
        """
        nodes, products = np.empty((2, len(pairs)), np.int64), np.empty(len(pairs))
        sides = list(zip(COLUMNS, (self.users, self.items), nodes, strict=True))

        def chunk(part: slice) -> None:
            for name, index, found in sides:
                found[part] = index.find(pairs[name][part], where)
            # what is not known gets some node's rows, whose product is then dropped
            source, target = (self._gather(np.maximum(found[part], 0)) for found in nodes)
            products[part] = np.einsum("nr,nr->n", source, target)

        in_threads(chunk, cut(len(pairs), CHUNK))
        if unknown == "error":
            for name, index, found in sides:
                _refuse_unknown(pairs[name], found, index.kind, where, first_row)
        is_unknown = (nodes < 0).any(axis=0)
        return pl.Series(PREDICTION, self.scale(products)).set(pl.Series(is_unknown), None)

    def _gather(self, nodes: np.ndarray) -> np.ndarray:
        """float32 [n, R]"""
        starts, part_of = self.ranges.starts, self.ranges.part_of(nodes)
        rows_nR = np.empty((len(nodes), self.rows[0].shape[1]), np.float32)
        for part in np.unique(part_of):
            places = np.flatnonzero(part_of == part)
            copy_rows(self.rows[part], nodes[places] - starts[part], rows_nR, places)
        return rows_nR


def open_predictor(model: SavedModel) -> PairPredictor:
    """Raises `ConfigError` for a model that ranks, `StorageError` for a damaged one."""
    pair: dict[str, Any] | None = model.manifest.get("pair")
    if pair is None:
        raise ConfigError(
            f"{model.folder}: this model ranks items, and predicts nothing of a pair; train one with task.kind=rating, "
            "click or count"
        )
    rows = [model.ranking_rows(part).numpy() for part in range(model.ranges.num_parts)]
    users, items = (_node_index(model, kind) for kind in (model.relation.source, model.relation.target))
    return PairPredictor(users, items, model.ranges, rows, scale_of(model, pair))


def scale_of(model: SavedModel, pair: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The map from products of ranking rows to the unit of the labels, both float64. pair: of the model's manifest."""
    likelihood = build_likelihood(load_config(model.folder / "config.yaml").task, pair["labels"])

    def scale(products: np.ndarray) -> np.ndarray:
        return calibrated(likelihood, products / pair["temperature"] + pair["constant"], pair["calibration"])

    return scale


def _node_index(model: SavedModel, kind: str) -> NodeIndex:
    ids = model.ids(kind)
    return NodeIndex(kind, ids["external_id"], ids["node_id"].to_numpy())


def _refuse_unknown(ids: pl.Series, nodes: np.ndarray, kind: str, where: str, first_row: int) -> None:
    """Raise `DataError` where a node is -1."""
    (places,) = np.nonzero(nodes < 0)
    if len(places):
        examples = ", ".join(f"{shown(ids[int(at)])} in row {first_row + at}" for at in places[:NUM_EXAMPLES])
        raise DataError(
            f"{where}: {len(places)} of the rows {first_row} to {first_row + len(ids) - 1} have a {kind} that training "
            f"never saw, e.g. {examples}; leave such rows out, or let them have no prediction with unknown=null "
            "(--unknown null)"
        )
