"""The interaction table: read and checked, with usable rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.pairs import fit_together, have_repeats
from dist_gat.config.sections import ColumnsConfig, DataConfig
from dist_gat.data.bad_rows import NUM_EXAMPLES, BadRows, refuse_bad_rows
from dist_gat.data.source import ROW, Source, missing_column, open_source, read_columns, read_header, unclosed_quote
from dist_gat.data.values import MAX_ID_BYTES, is_id_type, narrow_ids, parse_datetimes, parse_ids, parse_numbers
from dist_gat.data.vocabulary import WHOLE, above

ALIASES = {
    "user_id": ("user_id",),
    "item_id": ("item_id",),
    "weight": ("weight", "rating"),
    "datetime": ("datetime", "timestamp"),
}
IDS = ("user_id", "item_id")
WHERE = "where "
NOWHERE: Mapping[str, str] = {}


def read_table(path: Path, config: DataConfig, where: Mapping[str, str] = NOWHERE) -> tuple[pl.DataFrame, int]:
    """Read and check one file of interactions.

    Returns the frame and the number of bad rows dropped, which is 0 unless `config.skip_bad_rows`. Columns:
    user_id and item_id (of the file's type; Int64 or String from text), and where the file has them weight
    (Float64) and datetime (Int64, microseconds since the epoch); those of `columns.labels` (Float64). Pairs are
    distinct: of repeated ones the earliest stays, by datetime or else by row. Rows below `config.min_weight` are left
    out and not counted.

    where: rows with these values alone are read, by the file's own columns, as text.

    Raises `DataError` with the file, the first bad rows, what was expected and what to do.
    """
    source = open_source(path, config.format, config.separator)
    header = read_header(source)
    columns = _find_columns(source, header, config.columns)
    filters = {f"{WHERE}{name}": value for name, value in where.items()}
    for name in where:
        if name not in header:
            raise missing_column(source, header, name, "where")
        columns[f"{WHERE}{name}"] = header[name]
    raw = read_columns(source, columns)
    if filters:
        chosen = raw.frame.filter(*(pl.col(name).cast(pl.String) == value for name, value in filters.items()))
        raw = replace(raw, frame=chosen.drop(filters))
        if chosen.is_empty():
            raise DataError(f"{path}: no row has {where}; correct `where`, or leave the relation out")
    if raw.num_rows == 0:
        raise DataError(f"{path}: the file has no interactions; expected a row for each")

    frame, bad = check_columns(source, raw.frame)
    if raw.malformed is not None:
        bad.insert(0, raw.malformed)
    if not config.skip_bad_rows:
        refuse_bad_rows(path, source.counting, bad)
    frame = frame.drop_nulls()
    dropped = raw.num_rows - len(frame)

    if config.min_weight is not None:
        if "weight" not in frame.columns:
            raise DataError(f"{path}: data.min_weight needs a weight or rating column; name it in data.columns.weight")
        frame = frame.filter(pl.col("weight") >= config.min_weight)
    frame, repeated = _split_repeated(frame)
    if not config.skip_bad_rows:
        refuse_bad_rows(path, source.counting, [repeated])
    if frame.is_empty():
        limit = "" if config.min_weight is None else f" or their weight is below data.min_weight={config.min_weight}"
        raise DataError(f"{path}: none of the {raw.num_rows} rows is left: they are bad{limit}; correct the file")
    if source.is_text:
        frame = frame.with_columns(narrow_ids(frame[name]) for name in IDS)
    return frame.drop(ROW), dropped + repeated.count


def check_columns(source: Source, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[BadRows]]:
    """The columns parsed, null where a value is bad, and the bad rows by column."""
    bad: list[BadRows] = []
    parsed = [frame[ROW]]
    for name in frame.columns:
        if name == ROW:
            continue
        column = frame[name]
        refuse_line_breaks(source, frame, name)
        if name in IDS:
            good = checked_ids(source, column)
            bad.append(bad_ids(frame, name, good))
        elif name == "datetime":
            good = parse_datetimes(column)
            bad.append(bad_values(frame, name, good.is_null(), "datetime can't be read", "epoch seconds or ISO 8601"))
        else:
            good = parse_numbers(column)
            bad.append(bad_values(frame, name, good.is_null(), f"{name} is not a finite number", "a number"))
        parsed.append(good.alias(name))
    return pl.DataFrame(parsed), bad


def refuse_line_breaks(source: Source, frame: pl.DataFrame, name: str) -> None:
    """Raise `DataError` where a field of separated text goes over several lines: see `unclosed_quote`."""
    if source.separator:
        rows = frame.filter(pl.col(name).str.contains("\n", literal=True))[ROW]
        if len(rows):
            raise unclosed_quote(source, rows[0])


def checked_ids(source: Source, column: pl.Series) -> pl.Series:
    """Parsed IDs; an error if the type of the column can't hold IDs."""
    if not is_id_type(column.dtype):
        raise DataError(
            f"{source.path}: column '{column.name}' has type {column.dtype}; expected integers, text or floats; "
            "write the IDs as text"
        )
    return parse_ids(column)


def bad_ids(frame: pl.DataFrame, name: str, ids: pl.Series) -> BadRows:
    """The rows of a raw frame whose parsed `ids` are null."""
    bad = frame[name].filter(ids.is_null())
    has_text = bad.dtype == pl.String and (bad.str.strip_chars() != "").any()
    found = f"{name} is empty, too long or has a NUL byte" if has_text else f"{name} is empty"
    return bad_values(frame, name, ids.is_null(), found, f"an ID of 1 to {MAX_ID_BYTES} bytes in every row")


def bad_values(frame: pl.DataFrame, name: str, is_bad: pl.Series, found: str, expected: str) -> BadRows:
    """The rows of a raw frame where `is_bad`, with what they hold in column `name`."""
    rows = frame.filter(is_bad)
    return BadRows(found, expected, rows[ROW].to_numpy(), [repr(value) for value in rows[name].head(NUM_EXAMPLES)])


def _find_columns(source: Source, header: dict[str, str], mapping: ColumnsConfig) -> dict[str, str]:
    """Standard name -> spelling in the file, for the columns that are there."""
    columns: dict[str, str] = {}
    for name, aliases in ALIASES.items():
        mapped = getattr(mapping, name)
        present = [alias for alias in ((mapped,) if mapped else aliases) if alias in header]
        if present:
            columns[name] = header[present[0]]
        elif mapped or name in IDS:
            raise missing_column(source, header, mapped or name, f"data.columns.{name}")
    for name, column in mapping.labels.items():
        if column not in header:
            raise missing_column(source, header, column, f"data.columns.labels.{name}")
        columns[name] = header[column]
    return columns


def _has_repeated(frame: pl.DataFrame) -> bool:
    """Whether any pair of user and item occurs twice; faster for integers whose ranges fit 63 bits together."""
    if len(frame) and all(frame[name].dtype in WHOLE for name in IDS):
        numbers = [frame[name].to_numpy() for name in IDS]
        firsts, lasts = [int(column.min()) for column in numbers], [int(column.max()) for column in numbers]
        if fit_together(lasts[0] - firsts[0], lasts[1] - firsts[1]):
            return have_repeats(above(numbers[0], firsts[0]), above(numbers[1], firsts[1]))
    return frame.select(IDS).n_unique() < len(frame)


def _split_repeated(frame: pl.DataFrame) -> tuple[pl.DataFrame, BadRows]:
    """The frame without repetitions of a (user_id, item_id), and the rows that repeat an earlier one."""
    repeated = frame.clear()
    if _has_repeated(frame):
        order = ["datetime", ROW] if "datetime" in frame.columns else [ROW]
        ordered = frame.sort(order, maintain_order=True)
        is_first = ordered.select((pl.int_range(pl.len()).over(IDS) == 0).alias("first"))["first"]
        frame, repeated = ordered.filter(is_first).sort(ROW), ordered.filter(~is_first).sort(ROW)
    examples = [f"user {user!r}, item {item!r}" for user, item in repeated.select(IDS).head(NUM_EXAMPLES).iter_rows()]
    return frame, BadRows("pair of user and item again", "each pair once", repeated[ROW].to_numpy(), examples)
