"""New users as a user gives them: JSON lines, a table, or Python dictionaries, checked and turned into `History`.

A line is {"user": "x", "items": ["a", "b"]}, and may have "weights" and "times", lists of the same length. A table has
the columns user_id, item_id[, weight][, time], with a row for each interaction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError, first_line
from dist_gat.data.parquet import read_parquet
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.data.values import LAST_SECOND, UNITS
from dist_gat.data.vocabulary import encode
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.serve.pairs_file import FORMATS, SEPARATORS, unreadable
from dist_gat.serve.saved_model import SavedModel

NewUserRows = Path | pl.DataFrame | Sequence[Mapping[str, Any]]
KEYS = ("user", "items", "weights", "times")
EXPECTED = 'expected {"user": "x", "items": ["a", "b"]}, and if known "weights" and "times" of the same length'
Progress = Callable[[str], None]


def read_histories(source: NewUserRows, model: SavedModel, progress: Progress) -> list[History]:
    """In the order of the source. An item that comes again counts once, as its last row says; items that training never
    saw are left out, and `progress` is told. Raises `DataError` for what can't be read."""
    given = list(_given(source))
    if not given:
        return []
    for where, user in given:
        _check(user, where)
    ids = model.ids(model.relation.target)
    every = pl.Series([str(item) for _, user in given for item in user["items"]], dtype=pl.String)
    places = encode(every, ids["external_id"].cast(pl.String))
    ends = np.cumsum([len(user["items"]) for _, user in given])
    nodes, histories, seen = ids["node_id"].to_numpy(), [], set()
    for (where, user), own in zip(given, np.split(places, ends[:-1]), strict=True):
        name = str(user["user"])
        if name in seen:
            raise DataError(f"{where}: user {shown(name)} again; expected each new user once: put the items together")
        seen.add(name)
        weights, times = _numbers(user, "weights", where), _times(user, where)
        whole = History(name, nodes[np.maximum(own, 0)], None if weights is None else weights.astype(np.float32), times)
        # the last of equal ones, in the order of the list
        last = {place: at for at, place in enumerate(own.tolist()) if place >= 0}
        histories.append(whole.part(np.array(sorted(last.values()), dtype=np.int64)))
    unknown = every.filter(places < 0)
    if len(unknown):
        examples = ", ".join(shown(item) for item in unknown[:NUM_EXAMPLES])
        progress(f"{len(unknown):,} items are unknown to the model and left out, for example {examples}")
    return histories


def _given(source: NewUserRows) -> Iterable[tuple[str, Any]]:
    """Where it stands, and the dictionary of each user."""
    if isinstance(source, pl.DataFrame):
        return _of_table(source, "the table of new users")
    if not isinstance(source, Path):
        return [(f"new user {number}", user) for number, user in enumerate(source, start=1)]
    if not source.is_file():
        raise DataError(
            f"{source}: {'no file' if source.exists() else 'no such file'}; expected JSON lines or a table of new users"
        )
    form = FORMATS.get(source.suffix, "JSON lines")
    try:
        if form == "parquet":
            return _of_table(read_parquet(source), str(source))
        if form in SEPARATORS:
            return _of_table(pl.read_csv(source, separator=SEPARATORS[form], infer_schema=False), str(source))
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, pl.exceptions.PolarsError) as err:
        raise unreadable(source, form, first_line(err)) from None
    return [(f"{source}, line {n}", _parsed(line, f"{source}, line {n}")) for n, line in enumerate(lines, 1) if line]


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{where}: {first_line(err)}; {EXPECTED}") from None


def _of_table(table: pl.DataFrame, where: str) -> list[tuple[str, Any]]:
    """Users in the order of their first rows."""
    names = {"user_id": "user", "item_id": "items", "weight": "weights", "time": "times"}
    if missing := [name for name in ("user_id", "item_id") if name not in table.columns]:
        found = ", ".join(map(shown, table.columns))
        raise DataError(f"{where}: no column {' and '.join(missing)}; found {found}; expected user_id, item_id[, ...]")
    kept = table.select([name for name in names if name in table.columns])
    users = kept.group_by("user_id", maintain_order=True).agg(pl.all()).rename(lambda name: names[name])
    return [(f"{where}, user {user['user']}", user) for user in users.iter_rows(named=True)]


def _check(user: Any, where: str) -> None:
    """Raise `DataError` unless it is a dictionary with the keys and lists that are known."""
    if not isinstance(user, Mapping) or "user" not in user or not isinstance(user.get("items"), list):
        raise DataError(f"{where}: found {str(user)[:80]}; {EXPECTED}")
    if "columns" in user:
        raise DataError(
            f"{where}: has columns, which this model reads of no new user; leave them out, and give its interactions"
        )
    if more := [key for key in user if key not in KEYS]:
        raise DataError(f"{where}: unknown key {shown(more[0])}; {EXPECTED}")
    for name in ("weights", "times"):
        if user.get(name) is not None and (
            not isinstance(user[name], list) or len(user[name]) != len(user["items"])
        ):  # fmt: skip
            raise DataError(f"{where}: {name} is no list of {len(user['items'])}, as items is; {EXPECTED}")
    wrong = [one for one in (user["user"], *user["items"]) if isinstance(one, bool) or not isinstance(one, str | int)]
    if wrong:
        raise DataError(f"{where}: {str(wrong[0])[:40]!r} is no ID; expected text or whole numbers")


def _numbers(user: Mapping[str, Any], name: str, where: str) -> np.ndarray | None:
    """float64 [m]"""
    if user.get(name) is None:
        return None
    try:
        values = np.array([float(value) for value in user[name]])
    except (TypeError, ValueError, OverflowError):
        values = np.array([math.nan])
    if not np.isfinite(values.astype(np.float32)).all():
        raise DataError(f"{where}: {name}={str(user[name])[:80]}: expected finite numbers")
    return values


def _times(user: Mapping[str, Any], where: str) -> np.ndarray | None:
    """int64 [m], microseconds since 1970, of numbers in s, ms or us, told apart by their size, or of dates."""
    given = user.get("times")
    if given is None:
        return None
    try:
        if any(isinstance(one, date) or (isinstance(one, str) and "-" in one[1:]) for one in given):
            return np.array([_microseconds(one) for one in given], dtype=np.int64)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: times={str(given)[:80]}: expected all numbers since 1970 or all dates, as 2024-01-31T12:30:00"
        ) from None
    values = _numbers(user, "times", where)
    assert values is not None, "some are given"
    size = float(np.abs(values).max(initial=0))
    unit = "s" if size <= LAST_SECOND else "ms" if size <= LAST_SECOND * 1e3 else "us"
    return np.round(values * UNITS[unit]).astype(np.int64)


def _microseconds(value: Any) -> int:
    """Of a date or ISO text; without a zone it counts as UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
