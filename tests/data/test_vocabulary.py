"""External IDs to indices and back."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from dist_gat.base.errors import DataError
from dist_gat.data.vocabulary import parse_id


@pytest.mark.parametrize(("ids", "text"), [([1, 20], "20"), (["1", "20"], "20"), ([1.0, 20.0], "20.0")])
def test_parse_id_has_the_type_of_the_vocabulary(ids: list[Any], text: str) -> None:
    found = parse_id(text, pl.Series(ids))
    assert found == ids[1]
    assert type(found) is type(ids[1])


@pytest.mark.parametrize(
    ("text", "hint"),
    [("user77", "did you mean 'user7'"), ("zebra", "IDs look like 'user0', 'user1', 'user2'"), ("", "")],
)
def test_unknown_id_gets_a_hint(text: str, hint: str) -> None:
    vocabulary = pl.Series("user_id", [f"user{number}" for number in range(10)])
    with pytest.raises(DataError, match=f"unknown user_id '{text}'.*{hint}"):
        parse_id(text, vocabulary)


def test_ids_in_a_message_are_short_and_on_one_line() -> None:
    vocabulary = pl.Series("user_id", ["\x1b[2J" * 10_000, "two\nlines"])
    with pytest.raises(DataError) as caught:
        parse_id("\x1b[2J\n" * 10_000, vocabulary)
    message = str(caught.value)
    assert r"'\x1b[2J\n" in message
    assert "\x1b" not in message
    assert "\n" not in message
    assert len(message) < 300
