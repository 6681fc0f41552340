"""Vectors of users and items, whose inner products are the scores that the model ranks by.

Shape legend: n nodes of a part, M items, D numbers of a vector: those of the model, then those of the spectral filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import torch
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.data.parquet import plain_text
from dist_gat.serve.saved_model import SavedModel

VECTOR = "vector"


def check_inner_products(model: SavedModel) -> str | None:
    """What the inner products of the vectors leave out of the scores, for people; None where it is nothing.

    Raises `ConfigError` for a model that ranks nothing.
    """
    if not model.row_sizes["representation"]:
        raise ConfigError(f"{model.folder}: has no ranking rows, so there are no vectors to export")
    if model.linear_weight:
        return (
            f"the linear filter, which has the weight {model.linear_weight:g} in the blend and needs the interactions "
            "themselves; train with blend.linear=false where others shall have the same scores"
        )
    return None


def part_vectors(model: SavedModel, part: int, kind: str) -> Tensor:
    """float32 [n, D]: of the nodes of one type in a part."""
    nodes = model.ranges.nodes_of_type(part, kind)
    first = int(model.ranges.starts[part])
    own = slice(nodes.start - first, nodes.stop - first)
    return torch.cat([rows[own] for rows in model.ranking_rows(part)], dim=1)


def named_vectors(model: SavedModel, kind: str) -> Iterator[tuple[pl.DataFrame, Tensor]]:
    """Part by part external_id[, title] and the vectors, float32 [n, D]."""
    ids = model.ids(kind).sort("node_id")
    numbers = ids["node_id"].to_numpy()
    for part in range(model.ranges.num_parts):
        nodes = model.ranges.nodes_of_type(part, kind)
        start, stop = np.searchsorted(numbers, [nodes.start, nodes.stop])
        yield ids[int(start) : int(stop)].drop("node_id"), part_vectors(model, part, kind)


def all_vectors(model: SavedModel, kind: str) -> tuple[pl.DataFrame, Tensor]:
    """The same of all parts, in the order of the rows that `write_vectors` writes."""
    tables, vectors = zip(*named_vectors(model, kind), strict=True)
    return pl.concat(tables), torch.cat(list(vectors))


def write_vectors(model: SavedModel, kind: str, path: Path) -> int:
    """Write `USER_id` or the like, title where there are any, and `vector`, a list of D float32, part by part.

    Returns the number of rows.
    """
    writer, count = None, 0
    try:
        for names, vectors_nD in named_vectors(model, kind):
            flat = pa.array(vectors_nD.contiguous().numpy().ravel())
            table = names.rename({"external_id": f"{kind}_id"}).to_arrow()
            table = table.append_column(VECTOR, pa.FixedSizeListArray.from_arrays(flat, vectors_nD.shape[1]))
            table = plain_text(table)
            writer = writer or pa_parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            count += len(table)
    finally:
        if writer is not None:
            writer.close()
    return count
