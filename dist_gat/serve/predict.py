"""Predictions for a table of pairs, from a saved model alone.

Shape legend: n pairs of a chunk.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.serve.pair_predictor import open_predictors
from dist_gat.serve.saved_model import SavedModel
from dist_gat.tasks.pair_task import ALONE

CHUNK = 1 << 18
NUM_EXAMPLES = 3


def predict_pairs(model: SavedModel, pairs: pl.DataFrame) -> pl.DataFrame:
    """The rows of `pairs`, which has the columns user_id and item_id, with a column `prediction` more.

    In the unit of the labels: a rating, a probability, an expected count. Rows of parts that no pair asks for are
    not read. Raises `ConfigError` for a model that ranks, `DataError` for an ID that training never saw.
    """
    predictors = open_predictors(model)
    if not predictors:
        raise ConfigError(
            f"{model.folder}: this model ranks items, and predicts nothing of a pair; train one with task.kind=rating, "
            "click or count"
        )
    relation = model.relation
    nodes = [
        _nodes_of(pairs, column, model.ids(kind), kind)
        for column, kind in (("user_id", relation.source), ("item_id", relation.target))
    ]
    values = {name: np.empty(len(pairs)) for name in predictors}
    for start in range(0, len(pairs), CHUNK):
        for name, predictor in predictors.items():
            rows = [_rows_of(model, column[start : start + CHUNK], predictor.rows) for column in nodes]
            products = (rows[0] * rows[1]).sum(dim=1).double().numpy()
            values[name][start : start + CHUNK] = predictor.values(products)
    found = []
    for name, predictor in predictors.items():
        if predictor.exposure is not None:
            values[name] += _log_exposure(pairs, predictor.exposure)
        predicted = predictor.predictions([values[other] for other in (*predictor.needs, name)])
        found.append(pl.Series(column_of(name), predicted))
    return pairs.with_columns(found)


def column_of(task: str) -> str:
    """Of the predictions of a task."""
    return ALONE if task == ALONE else f"{ALONE}_{task}"


def _log_exposure(pairs: pl.DataFrame, label: str) -> np.ndarray:
    """float64 [n]. Raises `DataError` where the column is missing or a value is not above 0."""
    if label not in pairs.columns:
        raise DataError(f"the table of pairs has no column {label}, the exposure that the counts are relative to")
    exposure = pairs[label].cast(pl.Float64, strict=False)
    wrong = exposure.is_null() | ~(exposure > 0)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise DataError(f"row {row + 1} of pairs: {label} is {pairs[label][row]!r}; expected a number above 0")
    return np.log(exposure.to_numpy())


def _nodes_of(pairs: pl.DataFrame, column: str, ids: pl.DataFrame, kind: str) -> np.ndarray:
    """int64 [n]: the nodes of a column of external IDs."""
    if column not in pairs.columns:
        raise DataError(f"the table of pairs has no column {column}; it has {', '.join(pairs.columns)}")
    wanted = pairs.select(pl.col(column).cast(ids["external_id"].dtype, strict=False).alias("external_id"))
    found = wanted.join(ids.select("external_id", "node_id"), on="external_id", how="left", maintain_order="left")
    unknown = pairs[column].filter(found["node_id"].is_null())
    if len(unknown):
        examples = ", ".join(map(str, unknown.unique(maintain_order=True).head(NUM_EXAMPLES)))
        raise DataError(
            f"{len(unknown)} rows of pairs have a {kind} that training never saw, e.g. {examples}; leave them out"
        )
    return found["node_id"].to_numpy()


def _rows_of(model: SavedModel, nodes: np.ndarray, name: str) -> torch.Tensor:
    """float32 [n, R]: rows of nodes, of one name; each part is read once."""
    starts, part_of = model.ranges.starts, model.ranges.part_of(nodes)
    rows_nR = torch.empty(len(nodes), model.row_sizes[name])
    for part in np.unique(part_of):
        mine = np.flatnonzero(part_of == part)
        rows_nR[torch.from_numpy(mine)] = model.rows(part, name)[torch.from_numpy(nodes[mine] - starts[part])]
    return rows_nR
