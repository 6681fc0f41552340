"""Columns as IDs, numbers and times, in SQL: null where a value can't be used."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from dist_gat.data.engine import named

MAX_ID_BYTES = 4096
# of 1970 to 2200, in seconds; in a finer unit the numbers of these years are larger
LAST_SECOND = 7.3e9
UNITS = {"s": 1_000_000, "ms": 1000, "us": 1}  # microseconds in one
BLANKS = "chr(32) || chr(9) || chr(10) || chr(13) || chr(160)"


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_number(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def id_sql(name: str, kind: pa.DataType, is_file_text: bool) -> str | None:
    """An ID as VARCHAR, BIGINT, UBIGINT or DOUBLE: null where null, NaN, blank, too long, or with a NUL byte.

    Blanks round an ID of a text file count for nothing. None for a type that can't hold IDs.
    """
    column = named(name)
    if is_text(kind):
        text = f"trim({column}, {BLANKS})"
        fits = f"{text} <> '' and strlen({column}) <= {MAX_ID_BYTES} and not contains({column}, chr(0))"
        return f"case when {fits} then {text if is_file_text else column} end"
    if pa.types.is_uint64(kind):
        return f"{column}::ubigint"
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return f"try_cast({column} as bigint)"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return f"case when isfinite({column}::double) then {column}::double end"
    return None


def number_sql(name: str, kind: pa.DataType) -> str:
    """DOUBLE: null where the value isn't a number or isn't finite as float32."""
    if is_text(kind):
        number = f"try_cast(trim({named(name)}, {BLANKS}) as double)"
    elif is_number(kind) or pa.types.is_boolean(kind):
        number = f"{named(name)}::double"
    else:
        return "null::double"
    return f"case when isfinite(try_cast({number} as float)) then {number} end"


def time_sql(name: str, kind: pa.DataType) -> tuple[str, str]:
    """Two columns, of which one is null: BIGINT microseconds since 1970 of a date or ISO text, and a DOUBLE in a unit
    that is still to be found.

    Times without a zone count as UTC; numbers that are in no unit of these years are null.
    """
    column = named(name)
    number = number_sql(name, kind)
    number = f"case when abs({number}) <= {LAST_SECOND * 1e6} then {number} end"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return f"epoch_us({column}::timestamp)", "null::double"
    if is_text(kind):
        text = f"trim({column}, {BLANKS})"
        return f"epoch_us(try_cast({text} as timestamptz))", number
    return "null::bigint", number


def unit_of(number: str) -> str:
    """SQL for which unit a number of a time is in, by its size: s, ms or us."""
    size = f"abs({number})"
    return f"case when {size} <= {LAST_SECOND} then 's' when {size} <= {LAST_SECOND * 1e3} then 'ms' else 'us' end"


def narrow_ids(text: pl.Series) -> pl.Series:
    """Int64 where that keeps the text of every ID, so not for '007', else the String column itself."""
    number = text.cast(pl.Int64, strict=False)
    return number if (number.cast(pl.String) == text).fill_null(False).all() else text


def is_id_type(dtype: pl.DataType) -> bool:
    """Whether values of a type can serve as external IDs."""
    return dtype.is_integer() or dtype.is_float() or dtype in (pl.String, pl.Categorical, pl.Enum)
