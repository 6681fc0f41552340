"""A parquet file as a frame, whatever its bytes: Arrow reads and checks them, polars would trust them."""

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
        # nor does it check what a file says of its columns beside their types
        bare = table.cast(pa.schema([pa.field(field.name, field.type) for field in table.schema]))
        return pl.DataFrame(pl.from_arrow(bare))
    except (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException) as err:
        raise ValueError(str(err).strip()) from None
