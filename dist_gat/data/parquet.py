"""Reads a parquet file that may be damaged or hostile: Arrow reads and checks its bytes, which polars would trust; and
makes tables that others can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Some or all columns of a file. Raises `ValueError` where it is no whole, valid parquet file."""
    try:
        table = pa_parquet.ParquetFile(path).read(columns=columns)
        table.validate(full=True)  # polars trusts the bytes of a text column
        # polars does not check the metadata of columns either: keep names and types alone
        bare = table.cast(pa.schema([pa.field(field.name, field.type) for field in table.schema]))
        return pl.DataFrame(pl.from_arrow(bare))
    except (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException) as err:
        raise ValueError(str(err).strip()) from None


def plain_text(table: pa.Table) -> pa.Table:
    """With text as all readers know it, and not as polars' views."""
    fields = [pa.field(f.name, pa.large_string() if pa.types.is_string_view(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))
