"""`encode_file`: a table with texts, or images, to a file of vectors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.storage import atomic_file
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.data.bad_rows import malformed_rows, refuse_bad_rows
from dist_gat.data.source import open_beside
from dist_gat.exchange.stop_requests import Requests
from dist_gat.text.encode import encode_texts
from dist_gat.text.image_encoder import encode_images, images_in

VECTOR = "vector"
WRITE_ROWS = 1 << 14


def encode_file(
    source: Path, column: str | None, config: TextEncoderConfig, output: Path, cache: Path, images: bool = False,
    progress: Progress = be_silent, requests: Requests | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the vector of each row of `source`, a table or with `images` also a folder of them.

    column: of texts, or with `images` of file names below the table's folder. output: .npy, float32 [N, D], NaN where a
    row has no text; or .parquet, the table with a column `vector`, null there. Returns rows, without_vector, size,
    seconds and output. Raises what `encode_texts` and `encode_images` raise, and `ConfigError`, `DataError`.
    """
    started = time.perf_counter()
    if output.suffix not in (".npy", ".parquet"):
        raise ConfigError(f"--output {output}: expected a name that ends in .npy or .parquet")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.parent}; make it first")
    if images and source.is_dir():
        table, column, folder = images_in(source), "file", source
    elif column is None:
        raise ConfigError("--column is missing: name the column of texts, or of the images' file names")
    else:
        table, folder = _read(source, column, only=output.suffix == ".npy"), source.parent
    if output.suffix == ".parquet" and VECTOR in table.columns:
        raise DataError(f"{source}: has a column {VECTOR!r} already; write a .npy, or rename it")
    with atomic_file(output) as temporary:

        def on_disk(shape: tuple[int, int]) -> np.ndarray:
            return np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)

        def in_memory(shape: tuple[int, int]) -> np.ndarray:
            return np.empty(shape, np.float32)

        make = on_disk if output.suffix == ".npy" else in_memory
        if images:
            vectors_ND = encode_images(
                table[column], folder, config.encoder, cache, config.device, progress, requests, make
            )
        else:
            vectors_ND = encode_texts(table[column], config, cache, progress, requests, make)
        without = int(np.isnan(vectors_ND[:, 0]).sum())
        if output.suffix == ".parquet":
            _write(temporary, table, vectors_ND)
    return {
        "rows": len(table), "without_vector": without, "size": vectors_ND.shape[1],
        "seconds": time.perf_counter() - started, "output": str(output),
    }  # fmt: skip


def _read(path: Path, column: str, only: bool) -> pl.DataFrame:
    """The column, or the whole table, in the order of its rows."""
    table = open_beside(str(path), DataConfig(interactions=str(path)), "the table")
    table.check_column(column, "--column")
    names = [column] if only else table.names
    batches = list(table.batches({name: name for name in names}))
    refuse_bad_rows(table, malformed_rows(table).count, [malformed_rows(table)], "correct the file")
    if not batches:
        raise DataError(f"{path}: the table has no rows; expected one for each text")
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches).select(names)))


def _write(path: Path, table: pl.DataFrame, vectors_ND: np.ndarray) -> None:
    kind = pa.list_(pa.float32(), vectors_ND.shape[1])
    schema = table.to_arrow().schema.append(pa.field(VECTOR, kind))
    with pa_parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(table), WRITE_ROWS):
            some = vectors_ND[start : start + WRITE_ROWS]
            column = pa.FixedSizeListArray.from_arrays(some.ravel(), type=kind, mask=pa.array(np.isnan(some[:, 0])))
            rows = table.slice(start, WRITE_ROWS).to_arrow()
            writer.write_table(rows.append_column(schema.field(VECTOR), column).cast(schema))
