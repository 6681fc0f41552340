"""Files of a run: whole, missing, damaged, or of another layout."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dist_gat.base.errors import StorageError
from dist_gat.pages.run_files import branch, number_in, read_events, read_json, rows_of, text_in


def test_no_file_is_none_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json", "dist-gat evaluate") is None
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="a.json.*dist-gat evaluate"):
        read_json(tmp_path / "a.json", "dist-gat evaluate")


def test_events_pass_over_what_is_none(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    (tmp_path / "progress.jsonl").write_bytes(b'{"event": "start"}\n{"event": "st\n\n[1]\n\xff\n{"event": "done"}\n')
    assert [event["event"] for event in read_events(tmp_path)] == ["start", "done"]


@pytest.mark.parametrize("tree", [None, [], "text", 3, {"a": None}, {"a": [1]}, {"a": {"b": "c"}}, {"a": {"b": True}}])
def test_what_is_not_there_is_nothing(tree: object) -> None:
    assert number_in(tree, "a", "b") is None
    assert branch(tree, "a", "b") == {}
    assert rows_of(tree, "a", "b") == []


def test_what_is_there_is_found() -> None:
    tree = {"a": {"b": 1.5, "c": "text", "d": [{"e": 1}, 2], "f": math.nan}}
    assert (number_in(tree, "a", "b"), number_in(tree, "a", "f")) == (1.5, None)
    assert (text_in(tree, "a", "c"), text_in(tree, "a", "b")) == ("text", "")
    assert rows_of(tree, "a", "d") == [{"e": 1}]
