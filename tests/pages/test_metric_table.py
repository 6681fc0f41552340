"""Tables out of JSON of any layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from dist_gat.base.errors import StorageError
from dist_gat.pages.metric_table import MAX_ROWS, metric_tables, read_json


def test_an_evaluation_becomes_rows_named_by_their_keys() -> None:
    tree = {
        "valid": {"recall@20": 0.5, "num_users": 7},
        "test": {"recall@20": 0.25, "num_users": 8},
        "baselines": {"popularity": {"test": {"recall@20": 0.125, "num_users": 8}}},
        "slices": {"test": [{"slice": "cold", "recall@20": 0.0}, {"slice": "warm", "recall@20": 1}]},
        "seconds": 3.0,
    }
    first, second = metric_tables(tree)
    assert first.columns == ["recall@20", "num_users"]
    assert first.rows == [("valid", [0.5, 7]), ("test", [0.25, 8]), ("baselines / popularity / test", [0.125, 8])]
    assert second.columns == ["recall@20"]
    assert second.rows == [("slices / test / cold", [0.0]), ("slices / test / warm", [1.0])]


def test_rows_with_the_same_columns_stand_together() -> None:
    models = {
        name: {"metrics": {"recall@20": n}, "seconds": 1.0, "note": "a"} for n, name in enumerate(("ease", "gat"))
    }
    first, second = metric_tables({"split": "test", "models": models})
    assert first.rows == [("models / ease", [1.0]), ("models / gat", [1.0])]
    assert second.rows == [("models / ease / metrics", [0.0]), ("models / gat / metrics", [1.0])]


@pytest.mark.parametrize("tree", [None, {}, [], {"a": "text"}, {"seconds": 1.0}, 3, "text", [1, 2], {"a": {"b": True}}])
def test_what_has_no_table_gives_none(tree: object) -> None:
    assert metric_tables(tree) == []


def test_the_number_of_rows_is_bounded() -> None:
    (table,) = metric_tables([{"a": n} for n in range(MAX_ROWS + 5)])
    assert len(table.rows) == MAX_ROWS
    assert table.rows[1] == ("2", [1.0])


def test_no_file_is_none_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json", "dist-gat evaluate") is None
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="a.json.*dist-gat evaluate"):
        read_json(tmp_path / "a.json", "dist-gat evaluate")
