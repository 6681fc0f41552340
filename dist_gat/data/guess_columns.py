"""Guesses of what the columns of a table of interactions are, from their names, types and values, each with a reason.

A name says more than values do. Nothing is guessed of columns that somebody has named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import duckdb
import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.data.source import plain_type
from dist_gat.data.text_table import shown
from dist_gat.data.values import id_sql, is_id_type, number_sql, time_sql

Kind = Literal["ranking", "rating", "click", "count"]
ROLES = ("user", "item", "label", "time")
NONE = "none"

# words of names, those that say most first; a name is cut into words at marks and capitals
WORDS = {
    "user": "user userid uid customer member visitor account client buyer reader viewer listener person session",
    "item": "item itemid iid product sku article asin video movie film track song artist album news post photo book "
    "business place friend page game app",
    "label": "label rating stars weight click clicked like liked watched plays playcount listens purchased bought "
    "count visits quantity score",
    "time": "timestamp datetime time date ts at when",
}
COUNTS = {"plays", "playcount", "listens", "count", "visits", "quantity", "times", "number"}
RATINGS = {"rating", "stars", "score"}
# seconds, or milliseconds, from 1995 to 2100
TIMES = ((7.9e8, 4.1e9), (7.9e11, 4.1e12))
# a scale has at most so many steps, and ends there; a long tail goes on beyond so many medians
MOST_STEPS, LARGEST_STEP, LONG_TAIL = 21, 10, 4


@dataclass(frozen=True)
class Guess:
    column: str
    why: str


@dataclass(frozen=True)
class Guesses:
    """What columns are: label and time are None where there are none. kind: what to predict, and why."""

    user: Guess
    item: Guess
    label: Guess | None
    time: Guess | None
    kind: Kind
    why_kind: str
    num_rows: int
    num_bad: int  # rows without an ID
    num_repeated: int  # rows with a pair that an earlier row has


def guess_columns(frame: pl.DataFrame, given: Mapping[str, str] | None = None, counts: bool = False) -> Guesses:
    """From rows of a table; columns of text files are text.

    given: by role (user, item, label, time) a column, or `none` for label and time. counts: whether a label that may be
    a rating or a count is rather a count. Raises `DataError` where a given
    column is not there, or where no column can be the user or the item.
    """
    given = given or {}
    if not parse_numbers(pl.Series(frame.columns)).has_nulls():
        raise DataError(
            f"the first line has {', '.join(map(shown, frame.columns))}: expected the names of the columns; put a line "
            "with names there, such as user_id, item_id, or name them with --header user_id,item_id"
        )
    for role, column in given.items():
        if column not in frame.columns and (column != NONE or role in ("user", "item")):
            raise DataError(f"no column {shown(column)} for the {role}; found {', '.join(map(shown, frame.columns))}")
    found: dict[str, Guess | None] = {
        role: None if column == NONE else Guess(column, "you said so") for role, column in given.items()
    }
    for guess_one in (_by_name, _by_values):
        for role in ROLES:
            if found.get(role) is None and given.get(role) != NONE:
                taken = [guess.column for guess in found.values() if guess]
                found[role] = guess_one(frame, [name for name in frame.columns if name not in taken], role)
    user, item, label = found["user"], found["item"], found["label"]
    if user is None or item is None:
        missing = " and ".join(f"the {role}" for role in ("user", "item") if found[role] is None)
        raise DataError(
            f"no column can be {missing}; found {', '.join(map(shown, frame.columns))}; name it with --user or --item"
        )
    kind, why_kind = _kind_of(frame[label.column], counts) if label else ("ranking", "there is no label")
    pairs = pl.DataFrame({"user": parse_ids(frame[user.column]), "item": parse_ids(frame[item.column])})
    whole = pairs.drop_nulls()
    return Guesses(
        user,
        item,
        label,
        found["time"],
        kind,
        why_kind,
        len(frame),
        len(frame) - len(whole),
        len(whole) - len(whole.unique()),
    )


def parse_ids(column: pl.Series) -> pl.Series:
    """Null where a value can't be an ID."""
    return _parsed(column, id_sql("x", _kind(column), column.dtype == pl.String) or "null")


def parse_numbers(column: pl.Series) -> pl.Series:
    return _parsed(column, number_sql("x", _kind(column)))


def parse_datetimes(column: pl.Series) -> pl.Series:
    """Some number of each time, null where a value is none."""
    moment, number = time_sql("x", _kind(column))
    return _parsed(column, f"coalesce({moment}, ({number})::hugeint::bigint)")


def _kind(column: pl.Series) -> Any:
    return plain_type(column.head(0).to_arrow().type)


def _parsed(column: pl.Series, sql: str) -> pl.Series:
    table = column.alias("x").to_frame().to_arrow()
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("source", table.cast(table.schema.set(0, table.schema.field(0).with_type(_kind(column)))))
        return connection.sql(f"select {sql} as x from source").pl()["x"].alias(column.name)


def words_of(name: str) -> list[str]:
    """`isClicked_at` is is, clicked, at; the name without its marks is a word too."""
    cut = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).lower()
    return [re.sub(r"[^a-z0-9]", "", cut), *re.split(r"[^a-z0-9]+", cut)]


def _by_name(frame: pl.DataFrame, columns: list[str], role: str) -> Guess | None:
    """The column whose name has the word that says most, if its values can be what it says."""
    ranks = WORDS[role].split()
    said = [
        (ranks.index(word), at, word) for at, name in enumerate(columns) for word in words_of(name) if word in ranks
    ]
    for _, at, word in sorted(said):
        if FITS[role](frame[columns[at]]):
            return Guess(columns[at], f"its name says {word}")
    return None


def _by_values(frame: pl.DataFrame, columns: list[str], role: str) -> Guess | None:
    for name in columns:
        column = frame[name]
        if role in ("user", "item") and _is_id(column) and column.n_unique() > 1:
            return Guess(name, f"no name says {role}, and this is the first column left that may hold IDs")
        if role == "time" and _is_time(column) and _says_time(column):
            return Guess(name, "its values are times")
        if role == "label" and set(parse_numbers(column).unique().to_list()) == {0.0, 1.0}:
            return Guess(name, "its values are 0 and 1")
    return None


def _is_id(column: pl.Series) -> bool:
    return is_id_type(column.dtype)


def _is_label(column: pl.Series) -> bool:
    return len(column) > 0 and not parse_numbers(column).has_nulls()


def _is_time(column: pl.Series) -> bool:
    return len(column) > 0 and not parse_datetimes(column).has_nulls()


FITS = {"user": _is_id, "item": _is_id, "label": _is_label, "time": _is_time}


def _says_time(column: pl.Series) -> bool:
    """Whether values that can be read as times can hardly be anything else: dates, or seconds of these decades."""
    numbers = parse_numbers(column)
    if numbers.has_nulls():
        return True
    low, high = numbers.min(), numbers.max()
    return any(first <= low and high <= last for first, last in TIMES)  # type: ignore[operator]


def _kind_of(column: pl.Series, counts: bool) -> tuple[Kind, str]:
    """What a label asks for, from its values and its name."""
    words = set(words_of(column.name))
    values = parse_numbers(column).drop_nulls().to_numpy()
    distinct = np.unique(values)
    first, last = distinct[0], distinct[-1]
    if len(distinct) == 1:
        return "ranking", f"all labels are {first:g}, so what is there is liked, and nothing is known of the rest"
    if set(distinct) == {0.0, 1.0}:
        return "click", f"the labels are 0 and 1, {values.mean():.1%} of them 1"
    is_whole, span = bool((distinct == np.round(distinct)).all()), f"from {first:g} to {last:g}"
    is_scale = len(distinct) <= MOST_STEPS and last <= LARGEST_STEP and bool((2 * distinct % 1 == 0).all())
    says_count = bool(words & COUNTS) or (counts and not words & RATINGS)
    if is_whole and first >= 0 and (says_count or (not is_scale and last > LONG_TAIL * np.median(values))):
        return "count", f"the labels are whole numbers {span}, half of them at most {np.median(values):g}"
    if is_scale:
        return "rating", f"the labels are {len(distinct)} numbers {span}"
    return "rating", f"the labels are numbers {span}, and no counts"
