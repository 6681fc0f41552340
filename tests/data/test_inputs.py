"""Every kind of input: a file that the test writes, or a table in memory, gives the same rows."""

from __future__ import annotations

import bz2
import functools
import gzip
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
import scipy.sparse
from data_sets import Loaded, load, load_table

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig
from dist_gat.data import data_file

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


def odd_types() -> pa.Table:
    """What writers of parquet use for users, items, weights and times, and columns that nobody reads."""
    moments = pa.array([row[3] for row in ROWS], pa.timestamp("s", "Asia/Tokyo"))
    return pa.table({
        "lists": [[1], [], None, [2, 3]],
        "user_id": FRAME["user_id"].to_arrow().cast(pa.string()).dictionary_encode(),
        "item_id": FRAME["item_id"].to_arrow().cast(pa.string_view()),
        "rating": pa.array([row[2] for row in ROWS]).cast(pa.decimal128(8, 2)),
        "timestamp": moments,
        "nested": [{"a": 1}] * 4,
    })  # fmt: skip


def of_pandas(name: str | None) -> pa.Table:
    frame = FRAME.to_pandas()
    frame.index = pa.array([7, 5, 3, 9]).to_pandas()
    frame.index.name = name
    return pa.Table.from_pandas(frame)


def sqlite(folder: Path) -> None:
    with sqlite3.connect(folder / "t.db") as connection:
        connection.execute("create table orders (who text, what text, stars real, at integer)")
        connection.executemany("insert into orders values (?, ?, ?, ?)", ROWS)
    connection.close()


QUERY = "select who as user_id, what as item_id, stars as rating, at as timestamp from orders"
# kind of input -> the files, and the settings that read them
FILES: dict[str, tuple[dict[str, str | bytes], dict[str, Any]]] = {
    "csv": ({"t.csv": CSV}, {}),
    "upper case": ({"T.CSV": CSV}, {}),
    "tsv": ({"t.tsv": CSV.replace(",", "\t")}, {}),
    "semicolons": ({"t.csv": CSV.replace(",", ";")}, {"separator": ";"}),
    "tab by name": ({"t.txt": CSV.replace(",", "\t")}, {"format": "csv", "separator": "\\t"}),
    "several characters": ({"t.dat": CSV.replace(",", "::")}, {"format": "csv", "separator": "::"}),
    "no header": ({"t.dat": "\n".join(LINES).replace(",", "::")},
                  {"format": "csv", "separator": "::", "header": NAMES}),
    "a column without a name": ({"t.csv": "\n".join(f"{n},{line}" for n, line in enumerate(CSV.splitlines()))
                                 .replace("0,user_id", ",user_id")}, {}),
    "quotes": ({"t.csv": CSV.replace("ann", '"ann"')}, {}),
    "quotes in tsv": ({"t.tsv": CSV.replace("ann", '"ann"').replace(",", "\t")}, {"quote": "double"}),
    "blanks round IDs": ({"t.csv": CSV.replace("ann", " ann\t")}, {}),
    "Windows": ({"t.csv": "\ufeff" + CSV.replace("\n", "\r\n")}, {}),
    "latin-1": ({"t.csv": CSV.encode("latin-1")}, {"encoding": "latin-1"}),
    "utf-16": ({"t.csv": CSV.encode("utf-16")}, {"encoding": "utf-16"}),
    "utf-16-be": ({"t.csv": CSV.encode("utf-16-be")}, {"encoding": "utf-16-be"}),
    "gzip": ({"t.csv.gz": gzip.compress(CSV.encode())}, {}),
    "gzip of two members": ({"t.csv.gz": b"".join(gzip.compress(f"{line}\n".encode())
                                                  for line in CSV.splitlines())}, {}),
    "bzip2": ({"t.tsv.bz2": bz2.compress(CSV.replace(",", "\t").encode())}, {}),
    "zstd": ({"t.csv.zst": packed("zstd")}, {}),
    "json lines": ({"t.jsonl": JSON}, {}),
    "json lines in gzip": ({"t.jsonl.gz": gzip.compress(JSON.encode())}, {}),
    "json lines with more": ({"t.ndjson": JSON.replace("}", ',"tags":["a"]}')}, {}),
    "recbole": ({"t.inter": CSV.replace(",", "\t").replace("_id", "_id:token")
                 .replace("rating", "rating:float").replace("timestamp", "timestamp:float")}, {}),
    "arrow": ({"t.arrow": arrow(pa.ipc.new_file)}, {}),
    "arrow's stream": ({"t.arrow": arrow(pa.ipc.new_stream)}, {}),
    "feather": ({"t.feather": arrow(pa.ipc.new_file)}, {}),
    "parquet": ({"t.parquet": parquet()}, {}),
    "odd types": ({"t.pq": parquet(odd_types())}, {}),
    "pandas' index": ({"t.parquet": parquet(of_pandas(None))}, {}),
    "pandas' named index": ({"t.parquet": parquet(of_pandas("key"))}, {}),
    "several files": ({"a.csv": HALVES[0], "b.csv": HALVES[1]}, {"interactions": ["b.csv", "a.csv"]}),
    "a file twice": ({"a.csv": HALVES[0], "b.csv": HALVES[1]}, {"interactions": ["b.csv", "*.csv"]}),
    "a pattern": ({"p-1.csv": HALVES[0], "p-2.csv": HALVES[1], "q.csv": "no table"}, {"interactions": "p-?.csv"}),
    "a deep pattern": ({"t/a/1.csv": HALVES[0], "t/b/c/2.csv": HALVES[1]}, {"interactions": "t/**/*.csv"}),
    "a folder": ({"t/1.csv": HALVES[0], "t/b/2.csv": HALVES[1], "t/_SUCCESS": "", "t/.crc": "x"},
                 {"interactions": "t"}),
    "files of two compressions": ({"t/1.csv": HALVES[0], "t/2.csv.gz": gzip.compress(HALVES[1].encode())},
                                  {"interactions": "t"}),
    "columns in another order": ({"1.parquet": parquet(FRAME.head(2).to_arrow()),
                                  "2.parquet": parquet(FRAME.tail(2).select(reversed(NAMES)).to_arrow())},
                                 {"interactions": "*.parquet"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_each_kind(tmp_path: Path, kind: str) -> None:
    files, settings = FILES[kind]
    put(tmp_path, files)
    same(read(tmp_path, **{"interactions": next(iter(files)), **settings}))


def read(folder: Path, interactions: Any, tables: Any = None, **settings: Any) -> Loaded:
    """All rows, as training edges."""
    whole = {"path": str(folder), "interactions": interactions, "split": {"valid_ratio": 0, "test_ratio": 0}}
    return load(DataConfig.model_validate(whole | settings), tables=tables)


def same(loaded: Loaded) -> None:
    assert loaded.rows() == EXPECTED
    assert loaded.dataset.dropped == {}
    assert loaded.dataset.warnings == []
