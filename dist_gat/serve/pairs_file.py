"""Tables of pairs as files, batch by batch: read with Arrow, and written with the predictions beside the rows.

A text file has no types: its columns stay as they are written, also in a Parquet output. An empty field is a null,
and two quotes are an empty text.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from dist_gat.base.errors import ConfigError, DataError, first_line
from dist_gat.base.storage import atomic_file
from dist_gat.data.parquet import read_parquet
from dist_gat.data.values import narrow_ids
from dist_gat.serve.predict import BATCH, COLUMNS, Columns

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv"}
SEPARATORS = {"csv": ",", "tsv": "\t"}
READ_BYTES = 1 << 20
# some 100 000 rows of two IDs
BLOCK_BYTES = 2 << 20

Write = Callable[[pa.RecordBatch, pl.DataFrame], None]


@dataclass(frozen=True)
class PairsFile:
    """A file whose columns are checked."""

    path: Path
    format: str
    schema: pa.Schema

    @property
    def first_row(self) -> int:
        """The number of the first row, for messages: that of a text file comes after the header."""
        return 1 if self.format == "parquet" else 2

    def batches(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        """The rows in their order, and which share of the file has been read with each batch.

        The cuts depend on the file alone. Raises `DataError` where it is damaged.
        """
        read = self._parquet_batches() if self.format == "parquet" else self._text_batches()
        done = 0
        try:
            for batch, share in read:
                batch.validate(full=True)  # polars trusts the bytes of a text column
                done += batch.num_rows
                yield batch, share
        except (OSError, ValueError, pa.ArrowException) as err:
            raise unreadable(self.path, self.format, f"after {done} rows: {first_line(err)}") from None

    def _parquet_batches(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        # with a buffer, it never holds a whole column of a row group
        file, done = pa_parquet.ParquetFile(self.path, buffer_size=READ_BYTES, pre_buffer=False), 0
        for batch in file.iter_batches(BATCH):
            done += batch.num_rows
            # keep what metadata there may be away from polars and from the output
            yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema), done / file.metadata.num_rows

    def _text_batches(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        size = self.path.stat().st_size
        # a single thread can tell which row is bad
        reading = pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)
        parsing = pa_csv.ParseOptions(delimiter=SEPARATORS[self.format], newlines_in_values=True)
        types = {name: pa.string() for name in self.schema.names}
        converting = pa_csv.ConvertOptions(
            column_types=types,
            include_columns=self.schema.names,
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        )
        # Arrow refuses a header without a line's end
        with self.path.open("rb") as file, pa.OSFile(str(self.path)) as source:
            if not any(line.strip() for line in file.readlines(BLOCK_BYTES)[1:]):
                return
            for batch in pa_csv.open_csv(source, reading, parsing, converting):
                yield batch, min(source.tell() / size, 1.0)


def open_pairs(path: Path, wanted: Columns) -> PairsFile:
    """Raises `DataError` where it is no readable table with what is wanted."""
    form = format_of(path)
    if not path.is_file():
        raise DataError(f"{path}: {'no file' if path.exists() else 'no such file'}; expected a table of pairs")
    try:
        if form == "parquet":
            schema = pa_parquet.read_schema(path)
            fields = [pa.field(field.name, field.type) for field in schema]
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                names = next((row for row in csv.reader(file, delimiter=SEPARATORS[form]) if row), [])
            fields = [pa.field(name, pa.string()) for name in names]
    except (OSError, ValueError, csv.Error, pa.ArrowException) as err:
        raise unreadable(path, form, first_line(err)) from None
    columns = [field.name for field in fields]
    wanted.check(str(path), columns)
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path}: several columns are named {', '.join(repeated)}; rename or remove all but one")
    return PairsFile(path, form, pa.schema(fields))


def read_pairs(path: Path, wanted: Columns) -> pl.DataFrame:
    """A whole table; the columns of a text file get types, but for the IDs, which may be text like 007.

    Raises `DataError`.
    """
    source = open_pairs(path, wanted)
    try:
        if source.format == "parquet":
            return read_parquet(path)
        text = dict.fromkeys(COLUMNS, pl.String)
        frame = pl.read_csv(path, separator=SEPARATORS[source.format], schema_overrides=text, infer_schema_length=None)
        return frame.with_columns(narrow_ids(frame[name]) for name in COLUMNS)
    except (OSError, ValueError, pl.exceptions.PolarsError) as err:
        raise unreadable(path, source.format, first_line(err)) from None


def format_of(path: Path) -> str:
    """Raises `ConfigError` where the suffix doesn't tell."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the suffix {path.suffix!r} tells no format; expected one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix]


def unreadable(path: Path, form: str, reason: str) -> DataError:
    expected = "a whole parquet file" if form == "parquet" else f"a {form} table in UTF-8 with a header"
    return DataError(f"{path}: can't be read as {form}: {reason}; expected {expected}; write it again")


@contextmanager
def write_predictions(path: Path, schema: pa.Schema, outputs: Sequence[str]) -> Iterator[Write]:
    """Yield what writes a batch and its predictions. The file gets its name when the block succeeds, and is not there
    when it fails: what stood under the name stays.

    schema: of the batches. outputs: names of the predictions. Raises `ConfigError` for a name that can't be that of a
    table.
    """
    form = format_of(path)
    if path.is_dir():
        raise ConfigError(f"{path}: a folder is there; choose another name for the table of predictions")
    with atomic_file(path) as temporary:
        if form == "parquet":
            whole = pa.schema([*schema, *(pa.field(name, pa.float64()) for name in outputs)])
            # a dictionary of predictions would have as many entries as there are rows
            with pa_parquet.ParquetWriter(temporary, whole, use_dictionary=schema.names) as writer:

                def write(batch: pa.RecordBatch, predictions: pl.DataFrame) -> None:
                    columns = [*batch.columns, *(column.to_arrow() for column in predictions)]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=whole))

                yield write
            return
        with temporary.open("wb") as file:
            separator = SEPARATORS[form]
            empty = pl.DataFrame(schema=dict.fromkeys([*schema.names, *outputs], pl.String))
            empty.write_csv(file, separator=separator)

            def write(batch: pa.RecordBatch, predictions: pl.DataFrame) -> None:
                frame = pl.DataFrame(pl.from_arrow(batch)).hstack(predictions)
                try:
                    frame.write_csv(file, separator=separator, include_header=False)
                except pl.exceptions.PolarsError as err:
                    raise DataError(f"{path}: can't be {form}: {first_line(err)}; take .parquet instead") from None

            yield write
