"""Separated text, and lists of a user and its items, as batches of text columns.

Shape legend: a batch has the columns asked for as String, and `row`, the number of each row in its file.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from dist_gat.base.errors import DataError
from dist_gat.data.data_file import CHUNK_BYTES, DataFile, Unpacked

ROW = "row"
NUM_EXAMPLES = 3
MAX_SHOWN = 60  # characters of a value in a message
# stands for a separator of several characters: Arrow knows one alone
UNIT = b"\x1f"
BLOCK_BYTES = 4 << 20
LINE_END = b"\n"
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SUFFIX_OF = {"gzip": ".gz", "bzip2": ".bz2", "zstd": ".zst"}


def shown(value: object) -> str:
    """A value of a file as messages quote it: on one line, and not long."""
    return shorten(repr(value))


def shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


@dataclass(frozen=True)
class TextStyle:
    """How a text file is written."""

    separator: str = ","
    quotes: bool = True  # fields may stand between "
    header: tuple[str, ...] | None = None  # names, where the file has no line with them
    encoding: str = "utf-8"

    @property
    def delimiter(self) -> str:
        return self.separator if len(self.separator) == 1 else UNIT.decode()

    @property
    def first_row(self) -> int:
        return 2 if self.header is None else 1


@dataclass
class Malformed:
    """Rows with a wrong number of fields, which are in no batch, and lines that are no rows."""

    rows: list[int]
    texts: list[str]  # of the first
    num_fields: int = 0  # expected
    num_quoted: int = 0  # lines inside quoted fields


class Utf8:
    """A file as a stream of UTF-8 with one character between fields, for Arrow."""

    def __init__(self, file: DataFile, style: TextStyle) -> None:
        self.file, self.style = file, style
        self.bytes = Unpacked(file)
        self.decoder = codecs.getincrementaldecoder(style.encoding)("strict")
        self.pushed, self.held = b"", b""
        self.num_lines, self.closed, self.at_start, self.at_end = 0, False, True, False
        self.num_full, self.last = 0, LINE_END  # lines that are not blank; the byte before the next
        self.tail = b""  # comes after the end of the file

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """About `size` bytes; none at the end."""
        chunk, self.pushed = self.pushed, b""
        while not chunk and not self.at_end:
            raw = self.bytes.read(size)
            self.at_end = not raw
            decoded = self._decoded(raw)
            self._count_lines(decoded)
            chunk = self._whole_separators(decoded)
            if self.at_end:
                chunk += self.tail
        return chunk

    def read_line(self) -> bytes:
        """The first line that is not blank, with the blank ones before it; what follows stays to be read."""
        text = b""
        while b"\n" not in text.lstrip(b"\r\n") and (chunk := self.read()):
            text += chunk
        blank = len(text) - len(text.lstrip(b"\r\n"))
        end = text.find(b"\n", blank) + 1 or len(text)
        self.pushed = text[end:]
        return text[:end]

    def skip_blank(self) -> bool:
        """Whether there is anything but blank lines; these may be gone then."""
        while not self.pushed.strip() and (chunk := self.read()):
            self.pushed = chunk
        return bool(self.pushed.strip())

    def end_with(self, tail: bytes) -> None:
        """Give `tail` after what the file has."""
        self.tail = tail
        if self.at_end:
            self.pushed += tail

    def _count_lines(self, decoded: bytes) -> None:
        self.num_lines += decoded.count(b"\n")
        if self.style.quotes:  # others need not know
            text = self.last + decoded.translate(None, b"\r") + (LINE_END if self.at_end else b"")
            ends = np.frombuffer(text, np.uint8) == LINE_END[0]
            self.num_full += int(np.count_nonzero(ends[1:] & ~ends[:-1]))
            self.last = text[-1:]

    def _decoded(self, raw: bytes) -> bytes:
        if self.at_start and raw:
            self._refuse_others(raw)
            self.at_start = False
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if self.style.encoding == "utf-8" and raw.isascii() and not self.decoder.getstate()[0]:
            return raw
        try:
            return self.decoder.decode(raw, final=self.at_end).encode()
        except UnicodeDecodeError as err:
            line = self.num_lines + err.object[: err.start].count(b"\n") + 1
            wrong = err.object[err.start]
            raise DataError(
                f"{self.file.name}: can't be read as text: byte 0x{wrong:02x} in line {line} is not "
                f"{self.style.encoding.upper()}; "
                "write the file in UTF-8, or set data.encoding, for example data.encoding=latin-1"
            ) from None

    def _refuse_others(self, raw: bytes) -> None:
        for magic, kind in MAGIC.items():
            if raw.startswith(magic):
                remedy = f"give it the suffix {SUFFIX_OF[kind]}" if kind in SUFFIX_OF else "unpack it first"
                raise DataError(f"{self.file.name}: a {kind} archive, not text in UTF-8; {remedy}")
        for mark, encoding in MARKS.items():
            if raw.startswith(mark) and "16" not in self.style.encoding:
                raise DataError(
                    f"{self.file.name}: begins like text in UTF-16, not UTF-8; set data.encoding={encoding}"
                )

    def _whole_separators(self, chunk: bytes) -> bytes:
        """With UNIT for a separator of several characters; the beginning of one at the end waits for the rest."""
        separator = self.style.separator.encode()
        if len(self.style.separator) == 1:
            return chunk
        chunk, self.held = self.held + chunk, b""
        if UNIT in chunk:
            raise DataError(
                f"{self.file.name}: has the character U+001F, which can't stand beside a separator of several "
                "characters; write it with another separator"
            )
        keep = next((size for size in range(len(separator) - 1, 0, -1) if chunk.endswith(separator[:size])), 0)
        if keep and not self.at_end:
            chunk, self.held = chunk[:-keep], chunk[-keep:]
        return chunk.replace(separator, UNIT)

    def close(self) -> None:
        self.closed = True
        self.bytes.close()


def read_names(file: DataFile, style: TextStyle) -> list[str]:
    """The names of the columns, as they stand. Raises `DataError` where there is no line with any."""
    if style.header is not None:
        return list(style.header)
    stream = Utf8(file, style)
    try:
        names = split_line(stream.read_line(), style)
    finally:
        stream.close()
    if not names:
        raise DataError(f"{file.name}: the file has no line with the names of columns; expected one first")
    return names


def split_line(line: bytes, style: TextStyle) -> list[str]:
    lines = line.decode().splitlines(keepends=True)
    rows = csv.reader(lines, delimiter=style.delimiter, quoting=csv.QUOTE_MINIMAL if style.quotes else csv.QUOTE_NONE)
    return next(filter(None, rows), [])


def separated_batches(
    file: DataFile, style: TextStyle, columns: Sequence[int], malformed: Malformed
) -> Iterator[pa.RecordBatch]:
    """The columns at some positions, named by these, in the order of the file's rows, and `row`.

    malformed: gets the rows of another length. Raises `DataError` for a field of these columns over several lines.
    """
    stream = Utf8(file, style)
    num_fields = len(split_line(stream.read_line(), style)) if style.header is None else len(style.header)
    offset = style.first_row - 1  # Arrow sees no header, and counts from 1
    over_lines: list[int] = []
    # a row that Arrow tells us of, unless it stands inside a quoted field that nothing closes
    end, ends = style.delimiter * num_fields + "\x1e", []

    def note(row: Any) -> str:
        if style.quotes and row.text.strip("\n") == end:
            ends.append(row.number)
            return "skip"
        if "\n" in row.text.strip():
            over_lines.append(row.number + offset)  # Arrow would pass over an error here
        malformed.rows.append(row.number + offset)
        malformed.num_fields = num_fields
        if len(malformed.texts) < NUM_EXAMPLES:
            text = row.text.replace(style.delimiter, style.separator)
            malformed.texts.append(f"{row.actual_columns} fields in {text!r}")
        return "skip"

    names = [str(number) for number in range(num_fields)]
    wanted = [str(number) for number in columns]
    reading = pa_csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES, use_threads=False)
    parsing = pa_csv.ParseOptions(
        delimiter=style.delimiter,
        quote_char='"' if style.quotes else False,
        newlines_in_values=style.quotes,
        invalid_row_handler=note,
    )
    converting = pa_csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()))
    start, seen = len(malformed.rows), 0
    try:
        if not stream.skip_blank():  # which Arrow takes for an error
            return
        if style.quotes:
            stream.end_with(f"\n{end}\n".encode())
        for batch in pa_csv.open_csv(stream, reading, parsing, converting):
            if over_lines:
                break
            for column in batch.columns if style.quotes else ():
                lines = pc.match_substring(column, "\n")
                if lines.true_count:
                    at = int(np.flatnonzero(lines.to_numpy(zero_copy_only=False))[0])
                    raise unclosed_quote(file, int(_rows(seen, batch.num_rows, malformed.rows[start:], style)[at]))
            rows = _rows(seen, batch.num_rows, malformed.rows[start:], style)
            seen += batch.num_rows
            yield batch.append_column(ROW, pa.array(rows))
        if over_lines:
            raise unclosed_quote(file, over_lines[0])
        num_rows = seen + len(malformed.rows) + offset
        if style.quotes and not ends:
            raise unclosed_quote(file, num_rows)
        malformed.num_quoted = max(stream.num_full - num_rows, 0) if style.quotes else 0
    except pa.ArrowInvalid as err:
        if style.quotes and "straddl" in str(err):  # a row is longer than a block
            raise unclosed_quote(file, seen + len(malformed.rows) + style.first_row) from None
        raise
    finally:
        stream.close()


def _rows(seen: int, count: int, rejected: Sequence[int], style: TextStyle) -> np.ndarray:
    """Numbers of the next `count` rows after `seen` good ones, where some are rejected."""
    if not rejected:
        return np.arange(seen, seen + count) + style.first_row
    bad = np.array(rejected)
    # the n-th good row has as many rejected ones before it as have a number of at most n and their own rank
    good = np.arange(seen, seen + count) + style.first_row
    return good + np.searchsorted(bad - np.arange(len(bad)), good, side="right")


def unclosed_quote(file: DataFile, row: int) -> DataError:
    """The error for a row of several lines, which must not be dropped as one bad row: it may hide many rows."""
    return DataError(
        f"{file.name}: row {row} goes over several lines (row 1 is the header, blank lines don't count): a quote that "
        "opens there and isn't closed hides the rows that follow; expected one line; close or remove the quote, or set "
        "data.quote=none if quotes have no meaning in this file"
    )


def list_batches(file: DataFile, style: TextStyle) -> Iterator[pa.RecordBatch]:
    """Lines of a user and its items, as user_id, item_id and the line's number; a user without items gives no row."""
    stream = Utf8(file, style)
    held, number, is_first = b"", 1, True
    try:
        while True:
            chunk = stream.read(BLOCK_BYTES)
            whole, held = _whole_lines(held + chunk, at_end=not chunk)
            if is_first:
                refuse_triples(file, whole.decode())
                is_first = False
            lines = whole.decode().split("\n")
            frame = (
                pl.DataFrame({"line": lines})
                .with_row_index(ROW, offset=number)
                .select(pl.col(ROW).cast(pl.Int64), pl.col("line").str.extract_all(r"\S+").alias("ids"))
                .filter(pl.col("ids").list.len() > 1)
                .select(pl.col("ids").list.first().alias("0"), pl.col("ids").list.slice(1).alias("1"), ROW)
                .explode("1")
            )
            number += len(lines) - 1
            if len(frame):
                # not the view of strings that polars has
                types = pa.schema([("0", pa.large_string()), ("1", pa.large_string()), (ROW, pa.int64())])
                yield from frame.to_arrow().cast(types).to_batches()
            if not chunk:
                return
    finally:
        stream.close()


def _whole_lines(text: bytes, at_end: bool) -> tuple[bytes, bytes]:
    end = len(text) if at_end else text.rfind(b"\n") + 1
    return text[:end], text[end:]


def refuse_triples(file: DataFile, text: str) -> None:
    """Raise `DataError` where the first lines are no lists of a user and its items, but rows of a table."""
    lines = [line for line in text.split("\n")[:2000] if line.strip()]
    fields = [line.split() for line in lines]
    if not fields:
        return
    advice = (
        "read as LightGCN's lists (a user, then its items), since the suffix is .txt or data.format=lightgcn says so"
    )
    mark = next((mark for mark in ("::", ",", ";", "|") if all(mark in line for line in lines)), None)
    if mark is not None:
        raise DataError(
            f"{file.name}: each line has {shown(mark)}: {advice}; for a table set data.format=csv "
            f"data.separator='{mark}', "
            "and data.header=[user_id, item_id, ...] if no line has the names of its columns"
        )
    tab = "data.format=tsv" if all("\t" in line for line in lines) else "data.format=csv data.separator=' '"
    first, rest = fields[0], fields[1:]
    has_numbers = any(all(map(is_number, column)) for column in zip(*rest, strict=False))
    named = has_numbers and not any(is_number(name) for name in first)
    if named and len(first) > 1:
        raise DataError(
            f"{file.name}: the first line, {shown(' '.join(first))}, looks like names of columns: {advice}; for a "
            f"table set {tab}"
        )
    width = len(first)
    same = len(fields) > 2 and width > 2 and all(len(row) == width for row in fields)
    users = len({row[0] for row in fields})
    last = {row[-1] for row in fields}
    are_times = all(is_number(value) and float(value) >= 1e8 for value in last)
    if same and (users < 0.9 * len(fields) or are_times):
        raise DataError(
            f"{file.name}: every line has {width} fields, and {'the same users' if users < len(fields) else 'times'} "
            f"come again: {advice}; for a table of user, item and more set {tab} data.header=[user_id, item_id, ...]"
        )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
