"""Predictions for a table of pairs, from a saved model alone.

Shape legend: n pairs of a chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.files import load_config
from dist_gat.serve.saved_model import SavedModel
from dist_gat.tasks.pair_task import build_likelihood, calibrated

CHUNK = 1 << 18
NUM_EXAMPLES = 3


def predict_pairs(model: SavedModel, pairs: pl.DataFrame) -> pl.DataFrame:
    """The rows of `pairs`, which has the columns user_id and item_id, with a column `prediction` more.

    In the unit of the labels: a rating, a probability, an expected count. Rows of parts that no pair asks for are
    not read. Raises `ConfigError` for a model that ranks, `DataError` for an ID that training never saw.
    """
    pair: dict[str, Any] | None = model.manifest.get("pair")
    if pair is None:
        raise ConfigError(
            f"{model.folder}: this model ranks items, and predicts nothing of a pair; train one with task.kind=rating, "
            "click or count"
        )
    relation = model.relation
    nodes = [
        _nodes_of(pairs, column, model.ids(kind), kind)
        for column, kind in (("user_id", relation.source), ("item_id", relation.target))
    ]
    values = np.empty(len(pairs))
    for start in range(0, len(pairs), CHUNK):
        rows = [_rows_of(model, column[start : start + CHUNK]) for column in nodes]
        values[start : start + CHUNK] = (rows[0] * rows[1]).sum(dim=1).double().numpy()
    return pairs.with_columns(pl.Series("prediction", predictions_of(model, pair, values)))


def predictions_of(model: SavedModel, pair: dict[str, Any], products: np.ndarray) -> np.ndarray:
    """In the unit of the labels, float64 of the shape of products of ranking rows. pair: of the model's manifest."""
    likelihood = build_likelihood(load_config(model.folder / "config.yaml").task, pair["labels"])
    return calibrated(likelihood, products / pair["temperature"] + pair["constant"], pair["calibration"])


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


def _rows_of(model: SavedModel, nodes: np.ndarray) -> torch.Tensor:
    """float32 [n, R]: ranking rows of nodes; each part is read once."""
    starts, part_of = model.ranges.starts, model.ranges.part_of(nodes)
    rows_nR = torch.empty(len(nodes), model.manifest["representation_size"] + model.manifest["spectral_rank"])
    for part in np.unique(part_of):
        mine = np.flatnonzero(part_of == part)
        rows_nR[torch.from_numpy(mine)] = model.ranking_rows(part)[torch.from_numpy(nodes[mine] - starts[part])]
    return rows_nR
