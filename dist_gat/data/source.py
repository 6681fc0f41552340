"""One input file, whatever its format: its column names, and its columns as they stand.

Values are not checked here. Text formats give every column as String; parquet keeps its types.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from dist_gat.base.errors import DataError
from dist_gat.data.bad_rows import NUM_EXAMPLES, BadRows, shown
from dist_gat.data.parquet import read_parquet

MAX_NAMES = 20  # columns that a message names
MAX_REASON = 300  # characters of another library's message
ROW = "row"  # the column of row numbers in a RawTable
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "recbole",
    ".user": "recbole",
    ".item": "recbole",
    ".txt": "lightgcn",
}
SEPARATORS = {"csv": ",", "tsv": "\t", "recbole": "\t"}


@dataclass(frozen=True)
class Source:
    """A file that exists and isn't empty, with its format settled."""

    path: Path
    format: str  # parquet, csv, tsv, recbole or lightgcn
    separator: str  # "" where the format has none

    @property
    def is_text(self) -> bool:
        return self.format != "parquet"

    @property
    def counting(self) -> str:
        """How rows are numbered, for messages."""
        if self.format == "lightgcn":
            return "rows are the lines of the file"
        if self.format == "parquet":
            return "row 1 is the first"
        return "row 1 is the header, blank lines don't count"


@dataclass(frozen=True)
class RawTable:
    """Columns of a file before any check."""

    source: Source
    frame: pl.DataFrame  # the columns asked for, and ROW: Int64
    malformed: BadRows | None  # rows with a wrong number of fields; they aren't in the frame

    @property
    def num_rows(self) -> int:
        return len(self.frame) + (0 if self.malformed is None else self.malformed.count)


def open_source(path: Path, format: str, separator: str | None) -> Source:
    """Settle the format of a file. `auto` goes by the suffix. Raises `DataError`."""
    try:
        is_file, is_folder, is_there = path.is_file(), path.is_dir(), path.exists()
    except OSError as err:
        raise DataError(f"{path}: can't be read: {err}; check the file's name and its permissions") from None
    if not is_file:
        found = "is a folder, not a file" if is_folder else "is no regular file" if is_there else "no such file"
        raise DataError(f"{path}: {found}; check data.path and the file names in the data section")
    if format == "auto":
        if path.suffix not in SUFFIXES:
            raise DataError(
                f"{path}: the suffix '{path.suffix}' doesn't tell the format (known: {', '.join(SUFFIXES)}); "
                "set data.format to parquet, csv, tsv, recbole or lightgcn"
            )
        format = SUFFIXES[path.suffix]
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); expected a {format} table")
    if separator is not None and len(separator) != 1:
        raise DataError(
            f"{path}: data.separator={separator!r} is not one character; for tabs set data.format=tsv instead"
        )
    return Source(path, format, separator or SEPARATORS.get(format, ""))


def read_header(source: Source) -> dict[str, str]:
    """Column names, each with its spelling in the file (RecBole's `user_id:token` is `user_id`)."""
    if source.format == "lightgcn":
        return {"user_id": "user_id", "item_id": "item_id"}
    try:
        if source.format == "parquet":
            names = pa_parquet.read_schema(source.path).names
        else:
            # not with Arrow, which would parse a block of rows; `read_columns` reports bad rows
            with source.path.open(encoding="utf-8-sig", newline="") as file:
                names = next((row for row in csv.reader(file, delimiter=source.separator) if row), [])
    except (ValueError, OSError, csv.Error, pa.ArrowException) as err:
        raise _unreadable(source, err) from None
    if not names:
        raise DataError(f"{source.path}: the file has no line with the names of columns; expected one first")
    header: dict[str, str] = {}
    for name in names:
        plain = name.partition(":")[0] if source.format == "recbole" else name
        if plain in header:
            raise DataError(f"{source.path}: two columns are named {shown(plain)}; rename or remove one of them")
        header[plain] = name
    return header


def missing_column(source: Source, header: Mapping[str, str], name: str, setting: str) -> DataError:
    """The error for a column that a file lacks. `setting` is the key that would name another column."""
    (first, *others) = header
    more = f" and {len(header) - MAX_NAMES} more" if len(header) > MAX_NAMES else ""
    found = ", ".join(map(shown, list(header)[:MAX_NAMES])) + more
    message = f"{source.path}: no column '{name}'; found {found}"
    separators = [mark for mark in ",;\t|" if mark in first]
    if source.is_text and not others and separators:
        return DataError(
            f"{message}, a single column when split at {source.separator!r}: this looks like another separator; "
            f"set data.separator={separators[0]!r}"
        )
    return DataError(f"{message}; name the right one with {setting}=NAME")


def read_columns(source: Source, columns: Mapping[str, str]) -> RawTable:
    """Read some columns. `columns` maps the new name to the spelling in the file."""
    try:
        if source.format == "lightgcn":
            return RawTable(source, _read_lightgcn(source.path), None)
        if source.format == "parquet":
            table, malformed = read_parquet(source.path, list(dict.fromkeys(columns.values()))), None
        else:
            table, malformed = _read_separated(source, list(dict.fromkeys(columns.values())))
        frame = table.select(pl.col(raw).alias(new) for new, raw in columns.items())
    except DataError:
        raise
    except (ValueError, OSError, pa.ArrowException, pl.exceptions.PolarsError) as err:
        raise _unreadable(source, err) from None
    rows = np.arange(1, len(frame) + 1)
    if source.is_text:
        rejected = np.empty(0, np.int64) if malformed is None else malformed.rows
        rows = np.setdiff1d(np.arange(2, len(frame) + len(rejected) + 2), rejected, assume_unique=True)
    return RawTable(source, frame.with_columns(pl.Series(ROW, rows, dtype=pl.Int64)), malformed)


def read_head(source: Source, most_rows: int) -> pl.DataFrame:
    """At least `most_rows` first rows, or all, with the plain names of all columns; text columns are text.

    Rows with a wrong number of fields are left out. Raises `DataError`.
    """
    header = read_header(source)
    try:
        if source.format == "lightgcn":
            return _read_lightgcn(source.path).drop(ROW).head(most_rows)
        if source.format == "parquet":
            batches = pa_parquet.ParquetFile(source.path).iter_batches(columns=list(header.values()))
        else:
            types = pa_csv.ConvertOptions(column_types=dict.fromkeys(header.values(), pa.string()))
            parse = pa_csv.ParseOptions(
                delimiter=source.separator, newlines_in_values=True, invalid_row_handler=lambda row: "skip"
            )
            batches = pa_csv.open_csv(source.path, parse_options=parse, convert_options=types)
        read: list[Any] = []
        for batch in batches:
            batch.validate(full=True)  # polars trusts the bytes of a text column
            read.append(batch)
            if sum(map(len, read)) >= most_rows:
                break
        if not read:
            raise DataError(f"{source.path}: the file has no rows; expected one for each interaction")
        table = pa.Table.from_batches(read)
        return pl.DataFrame({plain: pl.Series(plain, table.column(raw)) for plain, raw in header.items()})
    except DataError:
        raise
    except (ValueError, OSError, pa.ArrowException, pl.exceptions.PolarsError) as err:
        raise _unreadable(source, err) from None


def _read_separated(source: Source, names: list[str]) -> tuple[pl.DataFrame, BadRows | None]:
    """The named columns as text, and the rows that have another number of fields than the header."""
    convert = pa_csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.string()))

    def read(threaded: bool, handler: Any) -> Any:
        parse = pa_csv.ParseOptions(delimiter=source.separator, newlines_in_values=True, invalid_row_handler=handler)
        options = pa_csv.ReadOptions(use_threads=threaded)
        return pa_csv.read_csv(source.path, read_options=options, parse_options=parse, convert_options=convert)

    try:
        return pl.DataFrame(pl.from_arrow(read(threaded=True, handler=None))), None
    except pa.ArrowInvalid:  # only a single thread can tell which row, and only in valid UTF-8
        with source.path.open(encoding="utf-8") as file:
            while file.read(1 << 20):
                pass
        rows: list[int] = []
        texts: list[str] = []

        def note(row: Any) -> str:
            if "\n" in row.text.strip():
                swallowed.append(row.number)
            rows.append(row.number)
            if len(texts) < NUM_EXAMPLES:
                texts.append(f"{row.actual_columns} fields in {row.text!r}")
                num_fields.append(row.expected_columns)
            return "skip"

        num_fields: list[int] = []
        swallowed: list[int] = []
        table = read(threaded=False, handler=note)
        if swallowed:
            raise unclosed_quote(source, swallowed[0]) from None
        return pl.DataFrame(pl.from_arrow(table)), BadRows(
            "wrong number of fields", f"{num_fields[0]} as in the header", np.array(rows), texts
        )


def _read_lightgcn(path: Path) -> pl.DataFrame:
    """Lines of a user and its items, as (user_id, item_id, ROW); a user without items gives no row."""
    # not polars' own reader, which would unpack a compressed file, of any size
    lines = pl.DataFrame({"line": path.read_text(encoding="utf-8-sig").split("\n")})
    return (
        lines.with_row_index(ROW, offset=1)
        .select(pl.col(ROW).cast(pl.Int64), pl.col("line").str.extract_all(r"\S+").alias("ids"))
        .filter(pl.col("ids").list.len() > 1)
        .select(pl.col("ids").list.first().alias("user_id"), pl.col("ids").list.slice(1).alias("item_id"), ROW)
        .explode("item_id")
    )


def unclosed_quote(source: Source, row: int) -> DataError:
    """The error for a row of several lines, which must not be dropped as one bad row: it may hide many rows."""
    return DataError(
        f"{source.path}: row {row} goes over several lines ({source.counting}): a quote that opens there and isn't "
        "closed hides the rows that follow; expected one line; close or remove the quote"
    )


def _unreadable(source: Source, err: Exception) -> DataError:
    expected = "a whole parquet file" if source.format == "parquet" else f"a {source.format} table in UTF-8"
    return DataError(
        f"{source.path}: can't be read as {source.format}: {str(err).strip()[:MAX_REASON]}; expected {expected}; "
        "if it has another format set data.format, else write it again"
    )
