"""Quotes and lines: no row vanishes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from input_files import CSV, put, read, refused, same


def test_rows_that_a_quote_hides(tmp_path: Path) -> None:
    """In a column that nobody reads, whose lines may also be legal, so that it is no error."""
    text = 'user_id,item_id,comment\n1,1,good\n2,2,"great\n3,3,fine\n\n4,4,so"\n5,5,bad\n'
    put(tmp_path, {"t.csv": text, "u.csv": text.replace('"', "")})
    loaded = read(tmp_path, "t.csv")
    assert loaded.pairs() == [(1, 1), (2, 2), (5, 5)]
    (warning,) = loaded.dataset.warnings
    for part in ("t.csv: 2 lines", "inside quoted fields", "data.quote=none"):
        assert part in warning
    whole = read(tmp_path, "t.csv", quote="none")
    assert whole.pairs() == [(number, number) for number in range(1, 6)] == read(tmp_path, "u.csv").pairs()
    assert whole.dataset.warnings == []


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
def test_blank_lines_are_no_hidden_rows(tmp_path: Path, end: str) -> None:
    line_end = "\r\n" if "\r" in end else "\n"
    put(tmp_path, {"t.csv": CSV.replace("\n", line_end * 2).rstrip() + end})
    same(read(tmp_path, "t.csv"))


@pytest.mark.parametrize("skip", [False, True])
def test_a_quote_that_opens_and_hides_the_rest(tmp_path: Path, skip: bool) -> None:
    lines = [f"{number},{number},fine\n" for number in range(300_000)]
    for at in (-10, 5):  # what is hidden fits in a block, or not
        hiding = [*lines[:at], lines[at].replace("fine", '"fine'), *lines[at:][1:]]
        put(tmp_path, {"t.csv": "user_id,item_id,comment\n" + "".join(hiding)})
        refused(["t.csv", "quote", "data.quote=none"], tmp_path, "t.csv", skip_bad_rows=skip)
