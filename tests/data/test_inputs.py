"""Every kind of input: a file that the test writes, or a table in memory, gives the same rows."""

from __future__ import annotations

import bz2
import functools
import gzip
import sqlite3
import subprocess
import sys
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
import pytest
import scipy.sparse
from input_files import (
    CSV,
    FRAME,
    HALVES,
    JSON,
    LINES,
    NAMES,
    ROWS,
    SECOND,
    arrow,
    packed,
    parquet,
    put,
    read,
    refused,
    same,
)

from dist_gat.data import data_file


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


class OfRecTools:
    """A stand-in for RecTools' `Dataset`."""

    def get_raw_interactions(self) -> Any:
        return FRAME.to_pandas()


class OfHuggingFace:
    """A stand-in for a data set of Hugging Face, which may have an order of rows beside its table."""

    features = dict.fromkeys(NAMES)

    def with_format(self, kind: str) -> dict[Any, pa.Table]:
        assert kind == "arrow"

        class Formatted:
            def __getitem__(self, rows: slice) -> pa.Table:
                return FRAME.to_arrow()[rows]

        return Formatted()  # type: ignore[return-value]


TABLES: dict[str, Callable[[], Any]] = {
    "pandas": FRAME.to_pandas,
    "pandas with an index": lambda: FRAME.to_pandas().set_index(np.array([5, 5, 1, 2])),
    "pandas with categories and dates": lambda: FRAME.with_columns(
        pl.col("user_id").cast(pl.Categorical), pl.from_epoch("timestamp")
    ).to_pandas(),
    "polars": lambda: FRAME,
    "Arrow": FRAME.to_arrow,
    "a reader of Arrow": lambda: pa.RecordBatchReader.from_batches(
        FRAME.to_arrow().schema, FRAME.to_arrow().to_batches()
    ),
    "RecTools": OfRecTools,
    "Hugging Face": OfHuggingFace,
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_in_memory(tmp_path: Path, kind: str) -> None:
    same(read(tmp_path, "clicks", {"clicks": TABLES[kind]()}))


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.csc_array])
def test_a_matrix(tmp_path: Path, make: Any) -> None:
    assert read(tmp_path, "m", {"m": make(np.array([[0, 2.5], [1, 0]]))}).rows() == [(0, 1, 2.5), (1, 0, 1.0)]


def test_what_is_no_table(tmp_path: Path) -> None:
    refused(["x: a list is no table", "SciPy"], tmp_path, "x", tables={"x": [1, 2]})


def test_side_tables_in_memory(tmp_path: Path) -> None:
    sizes = pl.DataFrame({"item": ["x", "y"], "size": [1, 3]})
    beside = {"item_features": {"path": "sizes", "id_column": "item", "columns": ["size"], "standardize": False}}
    loaded = read(tmp_path, "clicks", {"clicks": FRAME, "sizes": sizes}, **beside)
    assert loaded.dataset.columns["item"].values[:2].tolist() == [[1, 1], [1, 3]]


def test_a_query(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("create table orders (who text, what text, stars real, at integer)")
        connection.executemany("insert into orders values (?, ?, ?, ?)", ROWS)
    connection.close()
    query = "select who as user_id, what as item_id, stars as rating, at as timestamp from orders"
    same(read(tmp_path, "t.db", query=query))
    refused(["t.db", "needs data.query"], tmp_path, "t.db")
    refused(["t.db", "no such table", "a query that the database answers"], tmp_path, "t.db", query="select 1 from x")
    refused(["t.db", "gives no rows"], tmp_path, "t.db", query=f"{query} where at < 0")
    refused(["data.columns.user_id"], tmp_path, "t.db", query="select * from orders")
    put(tmp_path, {"u.db": CSV})
    refused(["u.db", "can't be read as sqlite"], tmp_path, "u.db", query=query)


def test_a_query_cannot_write(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("create table t (a)")
    connection.close()
    before = (tmp_path / "t.db").read_bytes()
    refused(["readonly"], tmp_path, "t.db", query="insert into t values (1)")
    assert (tmp_path / "t.db").read_bytes() == before


def test_postgres_without_its_extension(tmp_path: Path) -> None:
    refused(
        ["postgresql://host/shop", "install_extension('postgres')"], tmp_path, "postgresql://host/shop", query="select"
    )


@pytest.fixture
def remote() -> Iterator[str]:
    """A folder of a file system that is not this machine's disk."""
    system, folder = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name, text in (("t/day=1/a.csv", HALVES[0]), ("t/day=2/b.csv", HALVES[1]), ("t/_SUCCESS", "")):
        system.pipe(f"{folder}/{name}", text.encode())
    system.pipe(f"{folder}/t.csv.gz", gzip.compress(CSV.encode()))
    system.pipe(f"{folder}/t.parquet", parquet())
    system.pipe(f"{folder}/t.arrow", arrow(pa.ipc.new_file))
    system.pipe(f"{folder}/t.jsonl", JSON.encode())
    yield f"memory:/{folder}"
    system.rm(folder, recursive=True)


@pytest.mark.parametrize("name", ["t", "t/day=*/*.csv", "t/**/*.csv", "t.csv.gz", "t.parquet", "t.arrow", "t.jsonl"])
def test_an_address(tmp_path: Path, remote: str, name: str) -> None:
    same(read(tmp_path, f"{remote}/{name}"))


def test_folders_of_an_address_name_columns(tmp_path: Path, remote: str) -> None:
    found = read(tmp_path, f"{remote}/t", columns={"labels": {"of_day": "day"}}).columns["train"]
    assert found["of_day"].tolist() == [1, 1, 2, 2]


def test_an_address_where_nothing_is(tmp_path: Path, remote: str) -> None:
    refused([f"{remote}/none.csv", "can't be read"], tmp_path, f"{remote}/none.csv")
    refused([f"{remote}/n*.csv", "no file"], tmp_path, f"{remote}/n*.csv")
    refused(["what://x/t.csv", "can't be read"], tmp_path, "what://x/t.csv")


@pytest.mark.parametrize(("address", "package"), [("s3://shop/t.csv", "s3fs"), ("gs://shop/t.csv", "gcsfs")])
def test_an_address_that_needs_a_package(tmp_path: Path, address: str, package: str) -> None:
    try:
        fsspec.get_filesystem_class(address.partition(":")[0])
    except ImportError:
        refused([address, package, "pip install"], tmp_path, address)
    else:
        pytest.skip(f"{package} is there")


def test_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    put(tmp_path, {"t.csv": CSV, "t.csv.gz": gzip.compress(CSV.encode()), "t.parquet": parquet()})

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        for name in ("t.csv", "t.csv.gz", "t.parquet"):
            same(read(tmp_path, f"{address}/{name}"))
        refused([f"{address}/none.csv", "can't be read"], tmp_path, f"{address}/none.csv")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_folders_name_columns(tmp_path: Path) -> None:
    frame = FRAME.drop("timestamp")
    for day, part in (("2020-09-13", frame.head(2)), ("2020-09-14", frame.tail(2))):
        put(tmp_path, {f"t/day={day}/0.parquet": parquet(part.to_arrow())})
    loaded = read(tmp_path, "t", columns={"datetime": "day"})
    midnight = SECOND - SECOND % 86_400
    assert [row[3] // 10**6 - midnight for row in loaded.rows()] == [0, 0, 86_400, 86_400]
    chosen = {"relations": {"late": {"interactions": "t", "where": {"day": "2020-09-14"}}}}
    assert read(tmp_path, "t", **chosen).pairs("late") == loaded.pairs()[2:]


@pytest.mark.parametrize("codec", ["gzip", "bz2", "zstd"])
def test_a_bomb(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CSV + "\n" * 4_000_000
    name = f"t.csv{ {'gzip': '.gz', 'bz2': '.bz2', 'zstd': '.zst'}[codec] }"
    put(tmp_path, {name: packed(codec, text)})
    same(read(tmp_path, name))  # small enough to be read anyway
    monkeypatch.setattr(data_file, "UNPACKED_ANYWAY", 1 << 16)
    refused([name, "unpacks to more than 300 times its size"], tmp_path, name)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.bz2", "t.csv.zst", "t.jsonl.gz"])
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    put(tmp_path, {name: CSV, "whole": packed({"gz": "gzip", "bz2": "bz2", "zst": "zstd"}[name.rsplit(".")[-1]])})
    refused([name, "can't be read"], tmp_path, name)
    put(tmp_path, {name: (tmp_path / "whole").read_bytes()[:-20]})
    refused([name, "can't be read"], tmp_path, name)


def test_a_table_is_not_compressed_as_a_whole(tmp_path: Path) -> None:
    put(tmp_path, {"t.parquet.gz": gzip.compress(parquet())})
    refused(["t.parquet.gz", "compressed inside", "unpack it"], tmp_path, "t.parquet.gz")


@pytest.mark.parametrize(
    ("files", "interactions", "expected"),
    [
        ({"a.csv": CSV, "b.parquet": parquet()}, ["a.csv", "b.parquet"], ["several formats", ".csv, .parquet"]),
        ({"a.csv": CSV, "b.csv": CSV.replace("item_id", "sku")}, "*.csv", ["b.csv", "'sku'", "the same order"]),
        ({"a.csv": CSV, "b.csv": "\n".join(LINES)}, "*.csv", ["b.csv", "data.header"]),
        ({"a.csv": CSV, "b.csv": ""}, "*.csv", ["b.csv", "0 bytes"]),
        ({"a.jsonl": JSON, "b.jsonl": JSON.replace("item_id", "sku")}, "*.jsonl", ["b.jsonl: no column 'item_id'"]),
        ({"t/_SUCCESS": ""}, "t", ["the folder has no files"]),
        ({}, "*.csv", ["no file has a name like this"]),
        ({"t.jsonl": b'{"user_id": 1, "item_id": 2}\n{"user_id": '}, "t.jsonl", ["can't be read as jsonl"]),
        ({"t.jsonl": b"[1, 2]\n"}, "t.jsonl", ["can't be read as jsonl"]),
        ({"t.jsonl": b'{"user_id": 1, "item_id": 2}\n{"user_id": "a", "item_id": 2}\n'}, "t.jsonl", ["jsonl"]),
        ({"t.arrow": arrow(pa.ipc.new_file)[:-300]}, "t.arrow", ["can't be read as arrow"]),
        ({"t.arrow": b"ARROW1" + bytes(99)}, "t.arrow", ["can't be read as arrow"]),
        ({"t.csv": "\n".join(LINES)}, "t.csv", ["looks like a row", "data.header='[user_id, item_id, more, more]'"]),
        ({"t.txt": CSV.replace(",", "::")}, "t.txt", ["data.separator='::'", "data.header"]),
        ({"t.txt": CSV.replace(",", "\t")}, "t.txt", ["names of columns", "data.format=tsv"]),
        ({"t.txt": "1 5 4 900000000\n1 6 5 900000001\n2 5 1 900000002\n"}, "t.txt", ["4 fields", "data.header"]),
    ],
)  # fmt: skip
def test_files_that_are_no_table(
    tmp_path: Path, files: dict[str, str | bytes], interactions: Any, expected: list[str]
) -> None:
    put(tmp_path, files)
    refused(expected, tmp_path, interactions)


def test_reading_does_not_import_pandas(tmp_path: Path) -> None:
    """Arrow would, for an array of numpy: a tenth of the time of `prepare` of ten million rows."""
    pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4]}).write_parquet(tmp_path / "t.parquet")
    script = f"""
import sys
from pathlib import Path
from dist_gat.config.data_sections import ColumnsConfig, DataConfig
from dist_gat.data.engine import Engine
from dist_gat.data.source import open_source
from dist_gat.data.table import read_table
folder = Path({str(tmp_path)!r})
config = DataConfig(path=str(folder), interactions="t.parquet")
with Engine(folder, 10**9) as engine:
    table = read_table(engine, "rows", open_source("t.parquet", config), config, ColumnsConfig())
    assert [chunk["source_id"].tolist() for chunk in engine.batches(f"select * from {{table.rows}}")] == [[1, 2]]
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
