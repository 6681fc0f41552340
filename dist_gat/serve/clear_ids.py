"""From pseudonyms to external IDs and back, for who has the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from dist_gat.data.pseudonyms import SEALED, Pseudonyms, require_key
from dist_gat.serve.saved_model import SavedModel


def hide_users(model: SavedModel, pseudonyms: Pseudonyms, users: Sequence[Any]) -> list[str]:
    """The pseudonyms of users. Raises `ConfigError` for another key."""
    require_key(model.manifest, pseudonyms, str(model.folder))
    return [pseudonyms.pseudonym(model.relation.source, user) for user in users]


def with_clear_ids(model: SavedModel, pseudonyms: Pseudonyms, table: pl.DataFrame) -> pl.DataFrame:
    """A table of recommendations, in external IDs as text."""
    ends = {"user_id": model.relation.source, "item_id": model.relation.target}
    return table.with_columns(clear(model, pseudonyms, kind, table[column]) for column, kind in ends.items())


def clear(model: SavedModel, pseudonyms: Pseudonyms, kind: str, ids: pl.Series) -> pl.Series:
    """What is no pseudonym of the model, such as a new user, stays."""
    known = model.ids(kind).filter(pl.col("external_id").is_in(ids.unique().implode()))
    names = {row["external_id"]: pseudonyms.unseal(kind, row[SEALED]) for row in known.iter_rows(named=True)}
    return pl.Series(ids.name, [names.get(one, one) for one in ids], dtype=pl.String)
