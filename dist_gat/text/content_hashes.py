"""128 bits of SHA-256 for every text or file: what the cache knows them by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from dist_gat.base.storage import sha256_of

KEY = ("low", "high")
BYTES = 16
ROWS = 1 << 20


def hash_texts(texts: pl.Series) -> pl.DataFrame:
    """A row for each text, none of them null: two columns of UInt64. Takes about a second for a million."""
    parts = [np.empty((0, 2), np.uint64)]
    with duckdb.connect(":memory:") as connection:
        for part in texts.rename("text").to_frame().iter_slices(ROWS):
            connection.register("part", part.to_arrow())
            found = connection.sql(f"select unhex(left(sha256(text), {2 * BYTES})) as hash from part").pl()["hash"]
            parts.append(_numbers(b"".join(found)))
    return as_keys(np.concatenate(parts))


def hash_files(paths: Sequence[Path]) -> pl.DataFrame:
    """The same of the content of each file."""
    return as_keys(_numbers(b"".join(bytes.fromhex(sha256_of(path))[:BYTES] for path in paths)))


def _numbers(digests: bytes) -> np.ndarray:
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def as_keys(hashes_N2: np.ndarray) -> pl.DataFrame:
    """uint64 [N, 2] as the columns that are joined."""
    return pl.DataFrame(dict(zip(KEY, np.ascontiguousarray(hashes_N2.T), strict=True)))
