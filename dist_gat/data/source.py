"""`Source`: the files of one table, whatever their format, as Arrow batches of the columns that somebody needs.

Text formats give every column as text; others keep their types. Values are not checked here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.data_file import DataFile, find_files
from dist_gat.data.text_table import (
    ROW,
    Malformed,
    TextStyle,
    is_number,
    list_batches,
    read_names,
    separated_batches,
    shown,
)
from dist_gat.data.typed_table import (
    TypedTable,
    open_arrow,
    open_frame,
    open_json_lines,
    open_parquet,
    open_postgres,
    open_sqlite,
)

MAX_NAMES = 20  # columns that a message names
MAX_REASON = 300  # characters of another library's message
SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".inter": "recbole", ".user": "recbole", ".item": "recbole", ".kg": "recbole", ".link": "recbole",
    ".txt": "lightgcn",
    ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite",
}  # fmt: skip
SEPARATORS = {"csv": ",", "tsv": "\t", "recbole": "\t"}
TEXT = (*SEPARATORS, "lightgcn")
# a row's key: the number of its file in the high bits, its number in the file below
FILE_BITS = 40
UUID = "^(.{8})(.{4})(.{4})(.{4})"
ERRORS = (ValueError, OSError, sqlite3.Error, pa.ArrowException, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class Source:
    """Files that exist and aren't empty, of one format."""

    files: tuple[DataFile, ...]
    format: str
    style: TextStyle
    query: str | None = None
    frame: Any = None  # a table in memory, instead of files
    malformed: dict[int, Malformed] = field(default_factory=dict)  # by file: what the last reading found

    @property
    def is_text(self) -> bool:
        return self.format in TEXT

    @property
    def name(self) -> str:
        """For messages."""
        first = self.files[0].name
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more"

    @property
    def share(self) -> float:
        """Which share of the bytes has been read."""
        return sum(file.read_bytes[0] for file in self.files) / max(sum(file.size for file in self.files), 1)

    @property
    def counting(self) -> str:
        """How rows are numbered, for messages."""
        if self.format == "lightgcn":
            return "rows are the lines of the file"
        if not self.is_text or self.style.header is not None:
            return "row 1 is the first" + (", blank lines don't count" if self.is_text else "")
        return "row 1 is the header, blank lines don't count"

    @cached_property
    def names(self) -> list[str]:
        """Of the columns, by position (RecBole's `user_id:token` is `user_id`), then those that folders name."""
        if self.format == "lightgcn":
            return ["user_id", "item_id"]
        if self.is_text:
            names = self._guarded(lambda: read_names(self.files[0], self.style))
            plain = [name.partition(":")[0] for name in names] if self.format == "recbole" else names
        else:
            plain = self.tables[0].schema.names
        return [*(name.strip() for name in plain), *self.files[0].folders]

    @cached_property
    def tables(self) -> list[TypedTable]:
        """Of each file of a format with types."""
        openers: dict[str, Callable[[DataFile], TypedTable]] = {
            "parquet": open_parquet,
            "arrow": open_arrow,
            "jsonl": open_json_lines,
            "sqlite": lambda file: open_sqlite(file, self.query or ""),
            "postgres": lambda file: open_postgres(file.name, self.query or ""),
            "frame": lambda file: open_frame(file.name, self.frame),
        }
        return [self._guarded(lambda file=file: openers[self.format](file), file) for file in self.files]  # type: ignore[misc]

    def schema(self, columns: Mapping[str, str]) -> pa.Schema:
        """Of the batches of `columns`: one type a column, which those of all files can be cast to."""
        if self.is_text:
            return pa.schema([*((name, pa.large_string()) for name in columns), (ROW, pa.int64())])
        fields = []
        for new, name in columns.items():
            if name in self.files[0].folders:
                fields.append(pa.field(new, pa.large_string()))
                continue
            for table, file in zip(self.tables, self.files, strict=True):
                if name not in table.schema.names:
                    raise DataError(
                        f"{file.name}: no column '{name}', which {self.files[0].name} has; expected it in all"
                    )
            kinds = [plain_type(table.schema.field(name).type) for table in self.tables]
            fields.append(pa.field(new, common_type(kinds)))
        return pa.schema([*fields, pa.field(ROW, pa.int64())])

    def batches(self, columns: Mapping[str, str], numbers: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in their order: `columns` maps a new name to that of the file; `row` is each row's key.

        numbers: of the files to read, by default all.

        Rows with a wrong number of fields are in `malformed` afterwards. Raises `DataError`.
        """
        schema = self.schema(columns)
        for number in range(len(self.files)) if numbers is None else numbers:
            file = self.files[number]
            try:
                for batch in self._of_file(number, file, columns):
                    arrays = [array.cast(kind) for array, kind in zip(batch.columns, schema.types, strict=True)]
                    whole = pa.RecordBatch.from_arrays(arrays, schema=schema)
                    whole.validate(full=True)  # who reads it trusts the bytes of a text
                    yield whole
            except DataError:
                raise
            except ERRORS as err:
                raise self._unreadable(file, err) from None

    def _of_file(self, number: int, file: DataFile, columns: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """Batches of one file, with the columns in the order asked for, and then `row`."""
        first, own = self.key(number, 0), {new: name for new, name in columns.items() if name not in file.folders}
        if self.is_text:
            positions = [self.names.index(name) for name in own.values()]
            self.malformed[number] = Malformed([], [])
            distinct = sorted(set(positions))
            if self.format == "lightgcn":
                read = list_batches(file, self.style)
            else:
                self._check_names(number, file, list(own.values()))
                read = separated_batches(file, self.style, distinct, self.malformed[number])
            order, done = [str(position) for position in positions], 0
        else:
            names = list(dict.fromkeys(own.values()))
            read, order, done = self.tables[number].read(names), list(own.values()), 1
        for batch in read:
            rows = batch.column(ROW).to_numpy() if self.is_text else np.arange(done, done + batch.num_rows)
            done += batch.num_rows
            if not self.is_text and (every := self.tables[number].num_rows):
                file.read_bytes[0] = file.size * done // every
            arrays = dict(zip(own, (decoded(batch.column(name)) for name in order), strict=True))
            for new, name in columns.items():
                if new not in arrays:
                    arrays[new] = pa.array([file.folders[name]] * batch.num_rows, pa.large_string())
            keys = np.asarray(rows + first, np.int64)
            # not pa.array, which would import pandas to see whether this is one of its arrays
            key_array = pa.Array.from_buffers(pa.int64(), len(keys), [None, pa.py_buffer(keys)])
            yield pa.RecordBatch.from_arrays([*(arrays[new] for new in columns), key_array], names=[*columns, ROW])

    def _check_names(self, number: int, file: DataFile, needed: Sequence[str]) -> None:
        """Raise `DataError` where a further file has other columns."""
        if number and self.style.header is None:
            plain = [name.partition(":")[0].strip() for name in read_names(file, self.style)]
            if [plain.index(name) if name in plain else -1 for name in needed] != [self.names.index(n) for n in needed]:
                raise DataError(
                    f"{file.name}: has the columns {listed(plain)}, and {self.files[0].name} has {listed(self.names)}; "
                    "expected the same, in the same order; if it has no line with names, set data.header"
                )

    def check_column(self, name: str, setting: str) -> None:
        """Raise `DataError` unless one column has the name. setting: the key that would name another."""
        count = self.names.count(name)
        if count == 1:
            return
        if count:
            raise DataError(f"{self.name}: two columns are named {shown(name)}; rename or remove one of them")
        message = f"{self.name}: no column '{name}'; found {listed(self.names)}"
        if self.is_text and self.format != "lightgcn":
            if any(is_number(column) for column in self.names):
                raise DataError(
                    f"{message}, which looks like a row, not like names: a file without a line of names loses its "
                    "first row if one of these is taken for a name; set data.header, for example "
                    f"data.header='[user_id, item_id{', more' * (len(self.names) - 2)}]'"
                )
            (first, *others) = self.names
            mark = next((mark for mark in ("::", ",", ";", "\t", "|", ":") if mark in first), None)
            if not others and mark is not None:
                advice = "data.format=tsv" if mark == "\t" else f"data.separator='{mark}'"
                raise DataError(
                    f"{message}, a single column when split at {self.style.separator!r}: this looks like another "
                    f"separator; set {advice}"
                )
        raise DataError(f"{message}; name the right one with {setting}=NAME")

    def key(self, number: int, row: int) -> int:
        """Of a row in the file with a number."""
        return number << FILE_BITS | row

    def located(self, key: int) -> tuple[str, int]:
        """The name of the file, and the number in it, of a row."""
        return self.files[key >> FILE_BITS].name, key & ((1 << FILE_BITS) - 1)

    def _guarded(self, read: Callable[[], Any], file: DataFile | None = None) -> Any:
        try:
            return read()
        except DataError:
            raise
        except ERRORS as err:
            raise self._unreadable(file or self.files[0], err) from None

    def _unreadable(self, file: DataFile, err: Exception) -> DataError:
        kinds = {"parquet": "a whole parquet file", "sqlite": "a query that the database answers"}
        expected = kinds.get(self.format, f"a {self.format} table" + (" in UTF-8" if self.is_text else ""))
        return DataError(
            f"{file.name}: can't be read as {self.format}: {str(err).strip()[:MAX_REASON]}; expected {expected}; "
            "if it has another format set data.format, else write it again"
        )


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(map(shown, names[:MAX_NAMES])) + more


def decoded(array: pa.Array) -> pa.Array:
    """Without a dictionary; UUIDs as text."""
    if isinstance(array.type, pa.UuidType):
        digits = pl.Series(pl.from_arrow(array.storage.cast(pa.binary()))).bin.encode("hex")
        return digits.str.replace(UUID, "$1-$2-$3-$4-").to_arrow().cast(pa.large_string())
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of values that the engine reads."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_string_view(kind) or isinstance(kind, pa.UuidType):
        return pa.large_string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def common_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """The type that columns of several files can have together; text, where there is no other."""
    try:
        fields = [pa.schema([pa.field("x", kind)]) for kind in kinds]
        return pa.unify_schemas(fields, promote_options="permissive").field("x").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.large_string()


def open_source(
    names: str | Sequence[str], config: DataConfig, setting: str = "data.interactions", format: str | None = None,
    tables: Mapping[str, Any] | None = None,
) -> Source:  # fmt: skip
    """Find the files of a table and settle their format. tables: in memory, by the name that the recipe has for a file.

    setting: the key of the names, for messages. format: instead of `config.format`. Raises `DataError`.
    """
    if isinstance(names, str) and tables and names in tables:
        return Source((DataFile(names, 0),), "frame", TextStyle(), frame=tables[names])
    format = format or config.format
    if isinstance(names, str) and names.startswith(("postgres://", "postgresql://")):
        files, format = [DataFile(names, 1)], "postgres"
    else:
        files = find_files(names, config.path, setting)
    kinds = {file.suffix: kind_of(file, format) for file in files}
    if len(set(kinds.values())) > 1:
        raise DataError(
            f"{files[0].name} and {len(files) - 1} more: of several formats ({', '.join(kinds)}); expected one"
        )
    (format,) = set(kinds.values())
    for file in files:
        if file.size == 0:
            raise DataError(f"{file.name}: the file is empty (0 bytes); expected a {format} table")
        if file.codec and format not in (*TEXT, "jsonl"):
            raise DataError(f"{file.name}: a {format} file is compressed inside, not as a whole; unpack it first")
    if format in ("sqlite", "postgres") and not config.query:
        raise DataError(
            f"{files[0].name}: a database needs data.query, for example 'select user_id, item_id from orders'"
        )
    quotes = format == "csv" if config.quote == "auto" else config.quote == "double"
    header = tuple(config.header) if config.header is not None else None
    style = TextStyle(config.separator or SEPARATORS.get(format, " "), quotes, header, config.encoding)
    return Source(tuple(files), format, style, config.query)


def open_beside(
    names: str | Sequence[str], config: DataConfig, setting: str, tables: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Source:  # fmt: skip
    """`open_source` of a table that is not of interactions. given: settings of its own.

    data.format is for the interactions, so the suffix counts first; LightGCN's format holds interactions alone.
    """
    given = given or {}
    if isinstance(names, str) and tables and names in tables:
        return open_source(names, config, setting, tables=tables)
    suffixes = {file.suffix for file in find_files(names, config.path, setting)}
    by_suffix = all(SUFFIXES.get(suffix, "lightgcn") != "lightgcn" for suffix in suffixes)
    other = config.format if config.format not in ("auto", "lightgcn") else "csv"
    settings: dict[str, Any] = {"header": None, "query": None}
    if by_suffix and any(SUFFIXES[suffix] != "csv" for suffix in suffixes):
        settings["separator"] = None
    format = given.get("format") or ("auto" if by_suffix else other)
    own = config.model_copy(update=settings | {name: value for name, value in given.items() if value is not None})
    return open_source(names, own, setting, format, tables)


def kind_of(file: DataFile, format: str) -> str:
    if format != "auto":
        return format
    if file.suffix not in SUFFIXES:
        raise DataError(
            f"{file.name}: the suffix '{file.suffix}' doesn't tell the format (known: {', '.join(SUFFIXES)}); set "
            "data.format to parquet, csv, tsv, recbole, lightgcn, jsonl, arrow or sqlite"
        )
    return SUFFIXES[file.suffix]


def read_head(source: Source, most_rows: int) -> pl.DataFrame:
    """At least `most_rows` first rows, or all, with the plain names of all columns; text columns are text.

    Rows with a wrong number of fields are left out. Raises `DataError`.
    """
    names = {name: name for name in source.names if source.names.count(name) == 1 and name}
    if not names:
        source.check_column(source.names[0], "data.columns.user_id")
    read: list[pa.RecordBatch] = []
    for batch in source.batches(names):
        read.append(batch)
        if sum(map(len, read)) >= most_rows:
            break
    if not read:
        raise DataError(f"{source.name}: the file has no rows; expected one for each interaction")
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(read).drop_columns([ROW])))
