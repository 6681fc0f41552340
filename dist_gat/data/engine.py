"""`Engine`: DuckDB, within a limit of memory, and a folder of what its passes have written.

Chosen by measurement over polars' streaming engine: docs/notes/2026-11-29-prepare.md.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from dist_gat.base.errors import StorageError, first_line
from dist_gat.base.json_text import to_json
from dist_gat.base.running_beside import running_beside
from dist_gat.base.storage import write_text
from dist_gat.data.pseudonyms import Pseudonyms

BATCH_ROWS = 1 << 18
# DuckDB's limit covers its buffers; what it takes beside them, and our own arrays, share the rest
ENGINE_SHARE = 0.35
LEAST_BYTES = 200 << 20
REPORT_S = 2.0
# version 2 packs numbers that ascend: half the time of writing, and less than half of the disk
WRITTEN = "format parquet, parquet_version v2, compression 'lz4_raw'"


class Stream(NamedTuple):
    """Batches of rows that a query reads from the table `source`."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


class Tasks(Protocol):
    """Runs functions elsewhere, as Ray does. They and their arguments are pickled, and find `work` there."""

    num_tasks: int  # that run at the same time

    def __call__(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What the function returns for each tuple of arguments, in their order. Raises what it raises."""


class Engine:
    """Passes of SQL over parquet files in `work`, which is on a disk with room for all rows."""

    def __init__(
        self, work: Path, memory_bytes: int, progress: Callable[[str], None] = lambda message: None,
        threads: int | None = None, tasks: Tasks | None = None, pseudonyms: Pseudonyms | None = None,
    ) -> None:  # fmt: skip
        """memory_bytes: that the whole of `prepare` may take. threads: by default as many as this process may use.

        tasks: for the passes that are cut into pieces, which come out the same, bit for bit. pseudonyms: what external
        IDs become in all that is kept.
        """
        self.pseudonyms = pseudonyms
        self.work, self.memory_bytes, self.progress, self.tasks = work, memory_bytes, progress, tasks
        self.limit = max(int(memory_bytes * ENGINE_SHARE), LEAST_BYTES)
        settings: dict[str, Any] = {
            "memory_limit": f"{self.limit}B",
            "threads": threads or len(os.sched_getaffinity(0)),
            "temp_directory": str(work / "spilled"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self.connection = duckdb.connect(":memory:", config=settings)
        self.connection.execute("set TimeZone = 'UTC'")

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def write(self, name: str, sql: str, source: Stream | None = None, what: str = "") -> Path:
        """The file `name.parquet` with the rows of a query, in its order. what: is done, for the progress.

        Raises what the batches of `source` raise.
        """
        path = self.work / f"{name}.parquet"
        if path.exists() and source is None:  # by an earlier run
            return path
        temporary = path.with_suffix(".part")
        raised: list[BaseException] = []

        def batches(stream: Stream) -> Iterator[pa.RecordBatch]:
            try:
                yield from stream.batches
            except BaseException as err:  # the engine would only pass on its text
                raised.append(err)
                raise

        with self._connected() as connection, self._watched(connection, what):
            if source is not None:
                reader = pa.RecordBatchReader.from_batches(source.schema, batches(source))
                connection.register("source", reader)
            try:
                connection.execute(f"copy ({sql}) to {quoted(temporary)} ({WRITTEN})")
            except duckdb.Error:
                if raised:
                    raise raised[0] from None
                raise
        temporary.replace(path)
        return path

    def remember(self, key: str, found: Mapping[str, Any]) -> None:
        """Keep plain values that a pass has found, which is done with that."""
        write_text(self.work / f"{key}.json", to_json(found))

    def recall(self, key: str) -> dict[str, Any] | None:
        """What an earlier run, which was killed later, has kept."""
        path = self.work / f"{key}.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def batches(self, sql: str, what: str = "") -> Iterator[dict[str, np.ndarray]]:
        """The rows of a query, by column: numbers without nulls."""
        # by way of polars, since Arrow would import pandas for this
        for frame in self.frames(sql, what):
            yield {column.name: column.to_numpy() for column in frame}

    def frames(self, sql: str, what: str = "") -> Iterator[pl.DataFrame]:
        """The rows of a query, some after another."""
        with self._connected() as connection, self._watched(connection, what):
            for batch in connection.sql(sql).to_arrow_reader(BATCH_ROWS):
                yield pl.DataFrame(pl.from_arrow(batch))

    def frame(self, sql: str) -> pl.DataFrame:
        """The few rows of a query."""
        with self._connected() as connection:
            return connection.sql(sql).pl()

    def row(self, sql: str) -> dict[str, Any]:
        """The only row of a query, by column."""
        return self.frame(sql).row(0, named=True)

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self.connection.cursor() as cursor:  # of its own, since another query may not be read to its end
                yield cursor
        except duckdb.OutOfMemoryException as err:
            raise StorageError(
                f"{self.work}: the engine of `prepare` has too little memory or disk: {first_line(err)}; expected more "
                f"than {self.limit / 1e9:.1f} GB for it, and a disk with room for twice the table: raise "
                "data.memory_gb, or set data.prepared to a larger disk"
            ) from None
        except duckdb.IOException as err:
            raise StorageError(
                f"{self.work}: can't write what `prepare` has read: {first_line(err)}; set data.prepared to a disk "
                "with room for twice the table"
            ) from None

    @contextmanager
    def _watched(self, connection: duckdb.DuckDBPyConnection, what: str) -> Iterator[None]:
        """Report which share of a query is done, while the block runs."""
        if not what:
            yield
            return
        self.progress(what)
        started = time.monotonic()

        def watch(done: threading.Event) -> None:
            while not done.wait(REPORT_S):
                percent = connection.query_progress()
                if 0 < percent < 100:
                    left = (time.monotonic() - started) * (100 - percent) / percent
                    self.progress(f"{what}: {percent:.0f} %, {left:,.0f} s left")

        with running_beside(watch):
            yield


def quoted(text: str | Path) -> str:
    """A text of SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def named(column: str) -> str:
    """The name of a column in SQL."""
    return '"' + column.replace('"', '""') + '"'


def parquet(*paths: Path) -> str:
    """Files of ours as a table of SQL; the rows of each have their numbers from 0, as `file_row_number`."""
    # a folder may have a name that is a pattern for DuckDB
    plain = [re.sub(r"([*?\[])", r"[\1]", str(path)) for path in paths]
    return f"read_parquet([{', '.join(map(quoted, plain))}], file_row_number = true)"
