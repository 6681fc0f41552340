"""Messages show what a file holds; a terminal never obeys it."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.base.errors import ClusterError, ConfigError, DataError, StorageError, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain Ünïcödé 日本語 👩‍💻 می‌خواهم [red] :smile: 'quoted' \\", None),
        ("two\nlines", None),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m\x07\x08\r\t\x00\x7f", r"\x9b31m\x07\x08\r\t\x00\x7f"),
        ("abc\u202etxt.exe\u2066", r"abc\u202etxt.exe\u2066"),
        ("\ud800 \u2028\ufeff", r"\ud800 \u2028\ufeff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_not_text_is_escaped(text: str, expected: str | None) -> None:
    assert printable(text) == (expected or text)


def test_a_cell_keeps_to_one_line() -> None:
    assert printable("two\nlines", keep="") == r"two\nlines"


@given(st.text())
def test_escaping_twice_is_escaping_once(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    printable(text).encode()  # every terminal takes it


@pytest.mark.parametrize("kind", [ConfigError, DataError, StorageError, ClusterError])
def test_every_error_is_printable_also_in_another_process(kind: type[Exception]) -> None:
    error = kind("user '\x1b[2J': unknown\nlook again")
    assert str(error) == "user '\\x1b[2J': unknown\nlook again"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (kind, str(error))
