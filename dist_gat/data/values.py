"""Raw columns as IDs, numbers and times; null where a value can't be used."""

from __future__ import annotations

import polars as pl

MAX_ID_BYTES = 4096
MAX_EPOCH_S = 9.2e12  # beyond it microseconds overflow 64 bits
ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%dT%H:%M")
ISO_FORMAT_WITH_ZONE = "%Y-%m-%dT%H:%M:%S%.f%#z"


def is_id_type(dtype: pl.DataType) -> bool:
    """Whether values of a type can serve as external IDs."""
    return dtype.is_integer() or dtype.is_float() or dtype in (pl.String, pl.Categorical, pl.Enum)


def parse_ids(column: pl.Series) -> pl.Series:
    """IDs of the same type (String for categories), null where null, NaN, blank, too long, or with a NUL byte."""
    if column.dtype.is_integer():
        return column
    if column.dtype.is_float():
        return column.fill_nan(None)
    text = column.cast(pl.String)
    is_bad = (text.str.strip_chars() == "") | (text.str.len_bytes() > MAX_ID_BYTES)
    return text.set(is_bad | text.str.contains("\0", literal=True), None)


def narrow_ids(text: pl.Series) -> pl.Series:
    """Int64 where that keeps the text of every ID, so not for '007', else the String column itself."""
    number = text.cast(pl.Int64, strict=False)
    return number if (number.cast(pl.String) == text).fill_null(False).all() else text


def parse_numbers(column: pl.Series) -> pl.Series:
    """Float64, null where the value isn't a number or isn't finite as float32."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    elif not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    number = column.cast(pl.Float64, strict=False)
    return number.set(~number.cast(pl.Float32).is_finite(), None)


def parse_datetimes(column: pl.Series) -> pl.Series:
    """Int64 microseconds since the epoch, from numbers (seconds), dates, or ISO text; null elsewhere.

    Times without a zone count as UTC.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return column.dt.epoch("us")
    seconds = parse_numbers(column)
    seconds = seconds.set(seconds.abs() > MAX_EPOCH_S, None)
    micros = (seconds * 1e6).round().cast(pl.Int64)
    if column.dtype != pl.String or not micros.has_nulls():
        return micros
    text = column.str.strip_chars().str.replace(" ", "T")
    zoned = text.str.to_datetime(ISO_FORMAT_WITH_ZONE, time_unit="us", strict=False).dt.epoch("us")
    plain = [text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us") for form in ISO_FORMATS]
    return pl.select(pl.coalesce(micros, zoned, *plain)).to_series().alias(column.name)
