"""Tables that have types of their own: parquet, Arrow, JSON lines, a database's query, and data frames in memory.

Each opens as an Arrow schema, and a function that reads the batches of some columns. Arrow checks the bytes, which may
be damaged or hostile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from dist_gat.base.errors import DataError, first_line
from dist_gat.data.data_file import DataFile, Unpacked

BATCH_ROWS = 1 << 17
READ_BYTES = 4 << 20


class TypedTable(NamedTuple):
    schema: pa.Schema
    num_rows: int | None  # where the file says so
    read: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]  # of columns, by their names


def open_parquet(file: DataFile) -> TypedTable:
    def opened() -> Any:
        # with a buffer, it never holds a whole column of a row group
        return pa_parquet.ParquetFile(file.open(), buffer_size=READ_BYTES, pre_buffer=False)

    def read(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with opened() as table:
            yield from table.iter_batches(BATCH_ROWS, columns=list(names))

    with opened() as table:
        return TypedTable(table.schema_arrow, table.metadata.num_rows, read)


def open_arrow(file: DataFile) -> TypedTable:
    """An IPC file, which Feather is too, or an IPC stream."""

    def batches() -> Iterator[pa.RecordBatch]:
        with pa.PythonFile(file.open(), "r") as source:
            try:
                table = pa.ipc.open_file(source)
            except pa.ArrowInvalid:
                source.seek(0)
                yield from pa.ipc.open_stream(source)
                return
            for number in range(table.num_record_batches):
                yield table.get_batch(number)

    def read(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return (batch.select(list(names)) for batch in batches())

    first = next(batches(), None)
    if first is None:
        raise DataError(f"{file.name}: the file has no rows; expected one for each interaction")
    return TypedTable(first.schema, None, read)


def open_json_lines(file: DataFile) -> TypedTable:
    """One object a line; the types are those of the first lines."""
    reading = pa_json.ReadOptions(block_size=READ_BYTES)

    def opened(schema: pa.Schema | None) -> Any:
        parsing = pa_json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        )
        return pa_json.open_json(Unpacked(file), read_options=reading, parse_options=parsing)

    with opened(None) as table:
        schema = table.schema

    def read(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with opened(pa.schema([schema.field(name) for name in names])) as table:
            yield from (batch.select(list(names)) for batch in table)

    return TypedTable(schema, None, read)


def open_sqlite(file: DataFile, query: str) -> TypedTable:
    def batches() -> Iterator[pa.RecordBatch]:
        with closing(sqlite3.connect(f"file:{file.name}?mode=ro", uri=True, check_same_thread=False)) as connection:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            schema = None
            while rows := cursor.fetchmany(BATCH_ROWS):
                columns = [_array(values) for values in zip(*rows, strict=True)]
                batch = pa.RecordBatch.from_arrays(columns, names=names)
                schema = schema or batch.schema
                yield batch if batch.schema == schema else batch.cast(schema)

    first = next(batches(), None)
    if first is None:
        raise DataError(f"{file.name}: data.query gives no rows; expected one for each interaction")
    return TypedTable(first.schema, None, lambda names: (batch.select(list(names)) for batch in batches()))


def _array(values: Sequence[Any]) -> pa.Array:
    """A column of a database that has no types: as text where the values differ in kind."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def open_postgres(address: str, query: str) -> TypedTable:
    """Through DuckDB's extension `postgres`, which `duckdb -c "install postgres"` fetches once."""

    def batches() -> Iterator[pa.RecordBatch]:
        with duckdb.connect(":memory:") as connection:
            try:
                connection.execute("load postgres")
            except duckdb.Error as err:
                raise DataError(
                    f"{address}: DuckDB's extension for Postgres is not there: {first_line(err)}; fetch it once with "
                    "`python -c \"import duckdb; duckdb.connect().install_extension('postgres')\"`, or write the "
                    "query's rows to a parquet file"
                ) from None
            connection.execute("attach ? as source (type postgres, read_only)", [address])
            yield from connection.sql("select * from postgres_query('source', ?)", params=[query]).to_arrow_reader(
                BATCH_ROWS
            )

    reader = batches()
    first = next(reader, None)
    if first is None:
        raise DataError(f"{address}: data.query gives no rows; expected one for each interaction")
    return TypedTable(first.schema, None, lambda names: (batch.select(list(names)) for batch in batches()))


def open_frame(name: str, table: Any) -> TypedTable:
    """A data frame of pandas, polars or Arrow, a Hugging Face data set, a RecTools `Dataset`, or a SciPy matrix.

    A matrix has user_id, item_id and weight: its rows, columns and values.
    """
    found = arrow_table(table)
    if found is None:
        raise DataError(
            f"{name}: a {type(table).__name__} is no table that is known; expected a data frame of pandas, polars or "
            "Arrow, a Hugging Face data set, a RecTools Dataset or a SciPy matrix"
        )
    return TypedTable(
        found.schema, found.num_rows, lambda names: iter(found.select(list(names)).to_batches(BATCH_ROWS))
    )


def arrow_table(table: Any) -> pa.Table | None:
    if hasattr(table, "tocoo"):
        matrix = table.tocoo()
        rows, columns = matrix.coords if hasattr(matrix, "coords") else (matrix.row, matrix.col)
        return pa.table({"user_id": rows, "item_id": columns, "weight": matrix.data})
    if hasattr(table, "get_raw_interactions"):  # RecTools
        table = table.get_raw_interactions()
    elif hasattr(table, "with_format") and hasattr(table, "features"):  # Hugging Face, which may be a selection of rows
        table = table.with_format("arrow")[:]
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "__arrow_c_stream__"):
        return pa.table(table)
    return None
