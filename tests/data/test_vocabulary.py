"""External IDs to indices and back."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dist_gat.base.errors import DataError
from dist_gat.data.vocabulary import WHOLE, build_vocabulary, encode, is_dense, parse_id

IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1)).map(lambda ids: pl.Series(ids, dtype=pl.Int64)),
    st.lists(st.text(max_size=5)).map(lambda ids: pl.Series(ids, dtype=pl.String)),
    st.lists(st.floats(allow_nan=False)).map(lambda ids: pl.Series(ids, dtype=pl.Float64)),
)


@settings(deadline=None)
@given(ids=IDS)
def test_encode_and_decode_are_inverse(ids: pl.Series) -> None:
    vocabulary = build_vocabulary([ids, ids.reverse()])
    index = encode(ids, vocabulary)
    assert vocabulary.is_sorted()
    assert vocabulary.gather(index).to_list() == ids.to_list()
    assert encode(vocabulary, vocabulary).tolist() == list(range(len(vocabulary)))


@settings(deadline=None)
@given(data=st.data(), low=st.sampled_from(["lowest", "middle", "highest"]))
@pytest.mark.parametrize("dtype", WHOLE, ids=str)
def test_numbers_close_to_each_other_are_looked_up(dtype: Any, data: st.DataObject, low: str) -> None:
    least, most = pl.select(dtype.min(), most=dtype.max()).row(0)
    first = {"lowest": least, "middle": max((least + most) // 2 - 20, least), "highest": most - 40}[low]
    numbers = st.lists(st.integers(first, first + 40), min_size=1)
    vocabulary = build_vocabulary([pl.Series(data.draw(numbers), dtype=dtype)])
    ids = pl.Series([*data.draw(numbers), least, most], dtype=dtype)
    assume(is_dense(vocabulary))
    places = {number: place for place, number in enumerate(vocabulary.to_list())}
    assert encode(ids, vocabulary).tolist() == [places.get(number, -1) for number in ids.to_list()]


def test_unknown_ids() -> None:
    index = encode(pl.Series(["x", None, "q"]), pl.Series(["q", "z"]))
    assert index.tolist() == [-1, -1, 0]
    assert index.dtype == "int64"


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
