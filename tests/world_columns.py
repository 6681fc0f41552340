"""Columns of users and items of the small world, of every kind that needs no encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from helpers import ITEM, USER
from small_world import ITEMS, USERS

COLUMNS: dict[str, Any] = {
    "user": {"table": "users.parquet", "columns": {"age": "numeric", "gender": {"kind": "category", "missing": ["-"]}}},
    "item": {
        "table": "items.parquet",
        "columns": {
            "year": "numeric",
            "genres": {"kind": "categories", "separator": "|", "max_length": 2},
            "cover": {"kind": "vector", "scale": "l2"},
            "sound": {"kind": "vector"},
        },
    },
}


def write_columns(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Tables with what is known of most users and items of the small world; the same by type and external ID, without
    what is not known."""
    rng = np.random.default_rng(5)
    users = [
        {"user_id": f"u{n}", "age": None if n % 5 == 0 else int(rng.integers(9, 90)), "gender": "FM-X"[n % 4]}
        for n in range(USERS)
    ]
    items = [
        {
            "item_id": f"i{n}",
            "year": float(rng.integers(1900, 2020)),
            "genres": "|".join(f"g{g}" for g in rng.permutation(5)[: n % 4]),
            "cover": None if n % 6 == 0 else rng.standard_normal(7).astype(np.float32).tolist(),
            "sound": rng.standard_normal(5).astype(np.float32).tolist(),
        }
        for n in range(ITEMS)
    ]
    pl.DataFrame(users).write_parquet(folder / "users.parquet")
    types = {"cover": pl.List(pl.Float32), "sound": pl.List(pl.Float32)}
    pl.DataFrame(items, schema_overrides=types).write_parquet(folder / "items.parquet")
    known = {USER: {row.pop("user_id"): row for row in users}, ITEM: {row.pop("item_id"): row for row in items}}
    return {
        kind: {name: {key: value for key, value in row.items() if value is not None} for name, row in rows.items()}
        for kind, rows in known.items()
    }  # type: ignore[return-value]
