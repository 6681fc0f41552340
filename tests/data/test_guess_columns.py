"""Guesses of columns: by names, types and values; what somebody named is not guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from dist_gat.base.errors import DataError
from dist_gat.data.guess_columns import guess_columns, words_of

RNG = np.random.default_rng(0)
ROWS = 400
COLUMNS = {
    "id": RNG.integers(0, 50, ROWS),
    "other": RNG.integers(0, 90, ROWS),
    "click": RNG.integers(0, 2, ROWS),
    "rating": RNG.integers(1, 6, ROWS),
    "half": RNG.integers(1, 11, ROWS) / 2,
    "count": RNG.geometric(0.05, ROWS) ** 2,
    "ratio": RNG.random(ROWS) * 5,
    "one": np.ones(ROWS),
    "seconds": RNG.integers(1_600_000_000, 1_700_000_000, ROWS),
    "millis": RNG.integers(1_600_000_000, 1_700_000_000, ROWS) * 1000,
    "date": [f"2024-01-{1 + n % 28:02d}" for n in range(ROWS)],
    "word": [f"w{n}" for n in RNG.integers(0, 30, ROWS)],
}


def table(**columns: str) -> pl.DataFrame:
    """Columns of COLUMNS by new names, as text, as a CSV file gives them."""
    return pl.DataFrame({name: COLUMNS[kind] for name, kind in columns.items()}).cast(pl.String)


def found(frame: pl.DataFrame, **options: Any) -> tuple[Any, ...]:
    guesses = guess_columns(frame, **options)
    roles = (guesses.user, guesses.item, guesses.label, guesses.time)
    return (*(guess and guess.column for guess in roles), guesses.kind)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user_id": "id", "item_id": "other"}, ("user_id", "item_id", None, None, "ranking")),
        (
            {"timestamp": "seconds", "rating": "rating", "item_id": "other", "user_id": "id"},
            ("user_id", "item_id", "rating", "timestamp", "rating"),
        ),
        (
            {"CustomerID": "id", "sku": "word", "price": "ratio", "orderDate": "date"},
            ("CustomerID", "sku", None, "orderDate", "ranking"),
        ),
        ({"uid": "id", "news_id": "word", "clicked": "click"}, ("uid", "news_id", "clicked", None, "click")),
        ({"listener": "id", "artist": "word", "plays": "rating"}, ("listener", "artist", "plays", None, "count")),
        ({"user": "id", "song": "word", "weight": "count"}, ("user", "song", "weight", None, "count")),
        ({"user": "id", "book": "word", "stars": "half"}, ("user", "book", "stars", None, "rating")),
        ({"user": "id", "video": "word", "score": "ratio"}, ("user", "video", "score", None, "rating")),
        ({"user_id": "id", "item_id": "word", "weight": "one"}, ("user_id", "item_id", "weight", None, "ranking")),
        ({"a": "id", "b": "other", "c": "click", "d": "millis"}, ("a", "b", "c", "d", "click")),
        ({"a": "id", "b": "other", "c": "ratio", "d": "date"}, ("a", "b", None, "d", "ranking")),
        # a name that its values belie
        ({"user": "id", "item": "other", "rating": "word"}, ("user", "item", None, None, "ranking")),
        ({"user": "id", "item": "other", "time": "word"}, ("user", "item", None, None, "ranking")),
    ],
)
def test_columns_are_told_by_names_and_values(columns: dict[str, str], expected: tuple[Any, ...]) -> None:
    assert found(table(**columns)) == expected


def test_columns_with_types_are_told_too() -> None:
    frame = pl.DataFrame({"user": COLUMNS["id"], "item": COLUMNS["word"], "seen": COLUMNS["date"]})
    assert found(frame.with_columns(pl.col("seen").str.to_date())) == ("user", "item", None, "seen", "ranking")


def test_what_somebody_says_is_taken() -> None:
    frame = table(user_id="id", item_id="other", word="word", rating="rating", n="count", date="date")
    given = {"item": "word", "label": "n", "time": "none"}
    assert found(frame, given=given) == ("user_id", "word", "n", None, "count")
    assert guess_columns(frame, given).item.why == "you said so"
    assert found(frame, given={"label": "none"})[2:] == (None, "date", "ranking")
    with pytest.raises(DataError, match="no column 'nmae' for the item; found 'user_id', 'item_id'"):
        guess_columns(frame, {"item": "nmae"})
    with pytest.raises(DataError, match="no column 'none' for the user"):
        guess_columns(frame, {"user": "none"})


def test_small_whole_numbers_are_counts_where_counts_are_likely() -> None:
    frame = table(user="id", item="other", weight="rating")
    assert found(frame)[-1] == "rating"
    assert found(frame, counts=True)[-1] == "count"
    assert found(frame.rename({"weight": "stars"}), counts=True)[-1] == "rating"


def test_rows_that_prepare_would_refuse_are_counted() -> None:
    frame = pl.DataFrame({"user": ["a", "a", "b", ""], "item": ["x", "x", "x", "y"]})
    found = guess_columns(frame)
    assert (found.num_bad, found.num_repeated) == (1, 1)


def test_tables_that_cannot_be_interactions_are_errors() -> None:
    with pytest.raises(
        DataError, match="no column can be the item; found 'user', 'price'; name it with --user or --item"
    ):
        guess_columns(pl.DataFrame({"user": ["a", "b"], "price": ["1", "1"]}))
    with pytest.raises(DataError, match=r"the first line has '196', '242\.5': expected the names"):
        guess_columns(pl.DataFrame({"196": ["1"], "242.5": ["2"]}))


def test_names_are_cut_into_words() -> None:
    assert words_of("isClicked_at") == ["isclickedat", "is", "clicked", "at"]
    assert "userid" in words_of("User ID")
