"""Predictions of given pairs, from a saved model alone.

Shape legend: n pairs, R representation size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.graph.ranges import NodeRanges
from dist_gat.kernels.copy_rows import copy_rows
from dist_gat.kernels.threads import cut, in_threads
from dist_gat.serve.id_index import IdIndex, open_ids
from dist_gat.serve.pair_scale import PairScale, open_scales
from dist_gat.serve.saved_model import SavedModel
from dist_gat.tasks.pair_task import ALONE

Unknown = Literal["error", "null"]
COLUMNS = ("user_id", "item_id")
PREDICTION = "prediction"
BATCH = 1 << 17
# rows of two nodes stay in the processor's cache until they are multiplied
CHUNK = 1 << 13


def predict_pairs(model: SavedModel, pairs: pl.DataFrame, unknown: Unknown = "error") -> pl.DataFrame:
    """The rows of `pairs`, which has the columns user_id and item_id, with a column `prediction` more, or with
    `prediction_TASK` for each of several tasks.

    In the unit of the labels: a rating, a probability, an expected count. Counts with an exposure need its column too.
    Raises `ConfigError` for a model that ranks, `DataError` for an ID that training never saw, unless `unknown` is
    null: then the prediction is null.
    """
    predictor = open_predictor(model)
    predictor.columns.check("the table of pairs", pairs.columns)
    given = pairs.select(predictor.columns.inputs)
    found = [
        predictor.predict(given.slice(start, BATCH), "the table of pairs", start + 1, unknown)
        for start in range(0, len(pairs), BATCH)
    ]
    empty = pl.DataFrame(schema=dict.fromkeys(predictor.columns.outputs, pl.Float64))
    return pairs.hstack(pl.concat([empty, *found]))


@dataclass(frozen=True)
class Columns:
    """What a predictor reads of a table, and what it adds."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def check(self, where: str, columns: list[str]) -> None:
        """Raise `DataError` unless the table has the inputs, and room for the outputs."""
        missing = [name for name in self.inputs if name not in columns]
        if missing:
            raise DataError(
                f"{where}: no column {' and '.join(missing)}; found {', '.join(map(shown, columns))}; "
                f"expected the columns {' and '.join(self.inputs)}: rename them"
            )
        if taken := [name for name in self.outputs if name in columns]:
            raise DataError(f"{where}: there is a column {taken[0]} already; rename or remove it")


@dataclass(frozen=True)
class PairPredictor:
    """A saved model that is ready to predict one batch after another, each pair for itself.

    scales: of each task, from products of its rows to predictions. rows: by their name, of each part, float32 [nodes of
    the part, R]: views of the model's files, which the system reads where they are used.
    """

    users: IdIndex
    items: IdIndex
    ranges: NodeRanges
    scales: dict[str, PairScale]
    rows: dict[str, list[np.ndarray]]

    @property
    def columns(self) -> Columns:
        exposures = {scale.exposure for scale in self.scales.values() if scale.exposure is not None}
        names = [PREDICTION if name == ALONE else f"{PREDICTION}_{name}" for name in self.scales]
        return Columns((*COLUMNS, *sorted(exposures)), tuple(names))

    def predict(self, pairs: pl.DataFrame, where: str, first_row: int, unknown: Unknown) -> pl.DataFrame:
        """Float64 [n] columns, from those of `columns.inputs`. first_row: the number of the first, for messages.

        Raises `DataError` for an ID that training never saw, unless `unknown` is null: then the prediction is null.
        """
        nodes = np.empty((2, len(pairs)), np.int64)
        sides = list(zip(COLUMNS, (self.users, self.items), nodes, strict=True))
        values = {name: np.empty(len(pairs)) for name in self.scales}

        def chunk(part: slice) -> None:
            for name, index, found in sides:
                found[part] = index.find(pairs[name][part], where)
            for name, scale in self.scales.items():
                # what is not known gets some node's rows, whose product is then dropped
                source, target = (self._gather(scale.rows, np.maximum(found[part], 0)) for found in nodes)
                values[name][part] = scale.values(np.einsum("nr,nr->n", source, target))

        in_threads(chunk, cut(len(pairs), CHUNK))
        for name, scale in self.scales.items():
            if scale.exposure is not None:
                values[name] += _log_exposure(pairs[scale.exposure], where, first_row)
        if unknown == "error":
            for name, index, found in sides:
                _refuse_unknown(pairs[name], found, index.kind, where, first_row)
        is_unknown = pl.Series((nodes < 0).any(axis=0))
        predictions = [
            scale.predictions([values[other] for other in (*scale.needs, name)]) for name, scale in self.scales.items()
        ]
        named = zip(self.columns.outputs, predictions, strict=True)
        return pl.DataFrame([pl.Series(name, found).set(is_unknown, None) for name, found in named])

    def _gather(self, name: str, nodes: np.ndarray) -> np.ndarray:
        """float32 [n, R]"""
        rows, starts, part_of = self.rows[name], self.ranges.starts, self.ranges.part_of(nodes)
        rows_nR = np.empty((len(nodes), rows[0].shape[1]), np.float32)
        for part in np.unique(part_of):
            places = np.flatnonzero(part_of == part)
            copy_rows(rows[part], nodes[places] - starts[part], rows_nR, places)
        return rows_nR


def open_predictor(model: SavedModel) -> PairPredictor:
    """Raises `ConfigError` for a model that ranks, `StorageError` for a damaged one."""
    scales = open_scales(model)
    if not scales:
        raise ConfigError(
            f"{model.folder}: this model ranks items, and predicts nothing of a pair; train one with task.kind=rating, "
            "click or count"
        )
    names, parts = {scale.rows for scale in scales.values()}, range(model.ranges.num_parts)
    rows = {name: [model.rows(part, name).numpy() for part in parts] for name in names}
    users, items = (open_ids(model, kind) for kind in (model.relation.source, model.relation.target))
    return PairPredictor(users, items, model.ranges, scales, rows)


def _log_exposure(given: pl.Series, where: str, first_row: int) -> np.ndarray:
    """float64 [n]. Raises `DataError` where an exposure is not above 0."""
    exposure = given.cast(pl.Float64, strict=False)
    wrong = (exposure.is_null() | ~(exposure > 0)).fill_null(True)
    if wrong.any():
        at = int(wrong.arg_max() or 0)
        raise DataError(
            f"{where}: {given.name} is {shown(given[at])} in row {first_row + at}; expected a number above 0"
        )
    return np.log(exposure.to_numpy())


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
