"""One small table in every form, and what reading it must give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from data_sets import Loaded, load

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig

SECOND = 1_600_000_000
ROWS = [("ann", "x", 1.0, SECOND), ("ann", "y", 2.5, SECOND + 1), ("bö", "x", 3.0, SECOND + 2), ("cy", "ÿ", 4, SECOND)]
NAMES = ["user_id", "item_id", "rating", "timestamp"]
FRAME = pl.DataFrame(ROWS, NAMES, orient="row", strict=False)
LINES = [",".join(map(str, row)) for row in ROWS]
CSV = "\n".join([",".join(NAMES), *LINES, ""])
JSON = FRAME.write_ndjson()
EXPECTED = [(*row[:3], row[3] * 10**6) for row in ROWS]
HALVES = ["\n".join([",".join(NAMES), *lines, ""]) for lines in (LINES[:2], LINES[2:])]


def put(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def packed(codec: str, text: str = CSV) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, codec) as out:
        out.write(text.encode())
    return stream.getvalue().to_pybytes()


def arrow(make: Any, table: pa.Table | None = None) -> bytes:
    table = FRAME.to_arrow() if table is None else table
    stream = pa.BufferOutputStream()
    with make(stream, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write(batch)
    return stream.getvalue().to_pybytes()


def parquet(table: pa.Table | None = None) -> bytes:
    stream = pa.BufferOutputStream()
    pa_parquet.write_table(FRAME.to_arrow() if table is None else table, stream)
    return stream.getvalue().to_pybytes()


def read(folder: Path, interactions: Any, tables: Any = None, **settings: Any) -> Loaded:
    """All rows, as training edges."""
    whole = {"path": str(folder), "interactions": interactions, "split": {"valid_ratio": 0, "test_ratio": 0}}
    return load(DataConfig.model_validate(whole | settings), tables=tables)


def same(loaded: Loaded) -> None:
    assert loaded.rows() == EXPECTED
    assert loaded.dataset.dropped == {}
    assert loaded.dataset.warnings == []


def refused(expected: list[str], folder: Path, interactions: Any, **settings: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, interactions, **settings)
    for text in expected:
        assert text in str(caught.value)
