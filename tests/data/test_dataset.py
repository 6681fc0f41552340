"""Loading a whole data set: vocabularies, splits given and made, side tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_sets import Loaded, load

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig

HEADER = "user_id,item_id\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def load_files(folder: Path, split: dict[str, Any] | None = None, **settings: Any) -> Loaded:
    """Load the split files in a folder; only those that exist are configured."""
    names = {path.stem: path.name for path in folder.iterdir() if path.stem in ("train", "valid", "test")}
    return load(DataConfig(path=str(folder), split={"method": "files", **(split or {})}, **names, **settings), 0)


def load_one(folder: Path, text: str, seed: int = 0, **settings: Any) -> Loaded:
    write(folder, {"all.csv": text})
    return load(DataConfig(path=str(folder), interactions="all.csv", **settings), seed)


def refused(folder: Path, *expected: str, **settings: Any) -> None:
    with pytest.raises(DataError) as caught:
        load_files(folder, **settings)
    for text in expected:
        assert text in str(caught.value)


def test_given_files(tmp_path: Path) -> None:
    """An item that only test knows is part of the catalogue; valid may be missing."""
    write(tmp_path, {"train.txt": "20 7 5\n3 7\n", "test.txt": "3 5 11\n20\n"})
    dataset = load_files(tmp_path)
    assert dataset.users.to_list() == [3, 20]
    assert dataset.items.to_list() == [5, 7, 11]
    assert dataset.pairs("train") == [(3, 7), (20, 5), (20, 7)]
    assert dataset.pairs("test") == [(3, 5), (3, 11)]
    (warning,) = dataset.dataset.warnings
    assert "1 of 2 items of" in warning
    assert "for example 11" in warning
    assert dataset.pairs("valid") == []
    assert list(dataset.columns["train"]) == ["source", "target"]
    assert {column.dtype for column in dataset.columns["train"].values()} == {np.dtype(np.int64)}
    assert (dataset.dataset.titles, dataset.dataset.columns) == (None, {})
    assert dataset.dataset.dropped == {}


def test_valid_taken_out_of_train(tmp_path: Path) -> None:
    write(tmp_path, {"train.txt": "0 1 2 3\n1 1 2\n", "valid.txt": "0 2\n1 1\n", "test.txt": "0 4\n1 3\n"})
    dataset = load_files(tmp_path, split={"valid_is_part_of_train": True})
    assert dataset.pairs("train") == [(0, 1), (0, 3), (1, 2)]
    assert dataset.pairs("valid") == [(0, 2), (1, 1)]
    refused(tmp_path, "valid.txt: 2 pairs", "train.txt", "(user 0, item 2)", "valid_is_part_of_train=true")
    write(tmp_path, {"valid.txt": "0 2 9\n"})
    refused(tmp_path, "valid.txt: 1 pairs are not in", "item 9", split={"valid_is_part_of_train": True})
    write(tmp_path, {"valid.txt": "0 1 2 3\n1 1 2\n"})
    refused(tmp_path, "train.txt: no interaction is left", split={"valid_is_part_of_train": True})


@pytest.mark.parametrize("one", ["train", "valid"])
def test_leak_into_test(tmp_path: Path, one: str) -> None:
    files = {"train.txt": "0 1\n", "valid.txt": "0 2\n", "test.txt": "0 3 4 5 6 7\n"}
    files[f"{one}.txt"] = files[f"{one}.txt"].replace("\n", " 4 5 6 7\n")
    write(tmp_path, files)
    refused(tmp_path, "test.txt: 4 pairs are also in", f"{one}.txt", "(user 0, item 4), (user 0, item 5)", "leak")


def test_cold_users_of_given_files(tmp_path: Path) -> None:
    write(tmp_path, {"train.txt": "0 1\n6 2 3\n", "valid.txt": "0 2\n5 2\n", "test.txt": "0 3\n8 3 4\n7 9\n"})
    refused(tmp_path, "valid.txt: 1 rows of 1 users", "5", "--skip-bad-rows")
    dataset = load_files(tmp_path, skip_bad_rows=True)
    assert dataset.users.to_list() == [0, 6]
    assert dataset.items.to_list() == [1, 2, 3, 4, 9]
    assert dataset.dataset.dropped == {
        "valid rows of users without a training row": 1,
        "test rows of users without a training row": 3,
    }


def test_cold_users_of_our_split_are_dropped(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp\na,x,1\na,y,2\nb,x,3\na,z,4\n"
    dataset = load_one(tmp_path, text, split={"method": "temporal", "valid_ratio": 0.0, "test_ratio": 0.5})
    assert dataset.pairs("train") == [("a", "x"), ("a", "y")]
    assert dataset.pairs("test") == [("a", "z")]
    assert dataset.dataset.dropped == {"test rows of users without a training row": 1}


def test_training_rows_must_be_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all\.csv: no interaction is left for training.*test_ratio"):
        load_one(tmp_path, HEADER + "a,x\n", split={"valid_ratio": 0.0, "test_ratio": 0.9})


def test_id_types_of_files(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": HEADER + "1,x\n2,y\n", "test.csv": HEADER + "1,7\n1,y\n"})
    dataset = load_files(tmp_path)
    assert (dataset.users.to_list(), dataset.items.to_list()) == ([1, 2], ["7", "x", "y"])
    (tmp_path / "test.csv").unlink()

    def rewrite(ids: pl.Series) -> None:
        pl.DataFrame({"user_id": ids, "item_id": ["x"]}).write_parquet(tmp_path / "test.parquet")

    rewrite(pl.Series([2], dtype=pl.Int16))
    assert load_files(tmp_path).users.to_list() == [1, 2]
    rewrite(pl.Series([2.0]))  # as of a column that had gaps
    assert load_files(tmp_path).users.to_list() == [1, 2]
    rewrite(pl.Series([2], dtype=pl.UInt64))
    assert load_files(tmp_path).users.to_list() == [1, 2]
    rewrite(pl.Series(["2"]))  # text that its writer could have written as a number
    assert load_files(tmp_path).users.to_list() == ["1", "2"]


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": HEADER + "1,5\n2,6\n,5\n", "test.csv": HEADER + "1,6\n1\n"})
    refused(tmp_path, "train.csv: 1 bad row")
    assert load_files(tmp_path, skip_bad_rows=True).dataset.dropped == {"bad rows": 2}


@pytest.mark.parametrize("method", ["random", "temporal", "leave_last_out"])
def test_independent_of_row_order(tmp_path: Path, method: str) -> None:
    lines = [f"u{n % 7},i{n % 11},{n % 5},{n // 3}\n" for n in range(70)]
    one, other = (
        load_one(tmp_path, "user_id,item_id,rating,timestamp\n" + "".join(some), split={"method": method})
        for some in (lines, sorted(lines, reverse=True))
    )
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)
    for split in ("train", "valid", "test"):
        assert one.rows(split) == other.rows(split)
        assert list(one.columns[split]) == ["source", "target", "weight", "time"]
    assert [one.columns["train"][name].dtype for name in ("weight", "time")] == [np.float32, np.int64]


ROWS = HEADER + "".join(f"{user},{item}\n" for user in (1, 2) for item in (10, 20, 30))
FEATURES = {"path": "f.csv", "id_column": "id", "columns": ["height", "width"], "standardize": False}


def load_side(folder: Path, text: str, key: str, feature: dict[str, Any], **settings: Any) -> Loaded:
    write(folder, {feature["path"]: text})
    settings |= {key: feature, "split": {"valid_ratio": 0.0, "test_ratio": 0.0}}
    return load_one(folder, ROWS, **settings)


def test_features(tmp_path: Path) -> None:
    """Unknown IDs are ignored, missing ones are NaN, the columns come in the order asked for, behind `known`."""
    text = "width,name,id,height\n1.5,x,30,3\n2.5,y,99,4\n0.5,z,10,1\n"
    dataset = load_side(tmp_path, text, "item_features", FEATURES)
    found = dataset.dataset.columns["item"]
    np.testing.assert_array_equal(found.values, [[1, 1.0, 0.5], [1, np.nan, np.nan], [1, 3.0, 1.5]])
    assert found.values.dtype == np.float32
    assert [column.name for column in found.layout] == ["known", "height", "width"]
    assert list(dataset.dataset.columns) == ["item"]


def test_features_of_users_in_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["2"], "height": [7], "width": [True]}).write_parquet(tmp_path / "f.parquet")
    split = {"valid_ratio": 0.0, "test_ratio": 0.0}
    features: dict[str, Any] = {**FEATURES, "path": "f.parquet"}
    dataset = load_one(tmp_path, ROWS, split=split, user_features=features)
    np.testing.assert_array_equal(dataset.dataset.columns["user"].values, [[1, np.nan, np.nan], [1, 7.0, 1.0]])


@pytest.mark.parametrize(
    ("lines", "row", "found"),
    [
        (["10,tall,1"], 2, "height is not a finite number"),
        (["20,1,1", "10,1,nan"], 3, "width is not a finite number"),
        (["20,1,1", ",1,1"], 3, "id is empty"),
        (["20,1,1", "20,2,2"], 3, "id again"),
        (["20,1,1", "20,2"], 3, "wrong number of fields"),
    ],
)
def test_bad_features(tmp_path: Path, lines: list[str], row: int, found: str) -> None:
    text = "\n".join(["id,height,width", *lines, "30,3,3"])
    with pytest.raises(DataError) as caught:
        load_side(tmp_path, text, "item_features", FEATURES)
    for part in ("f.csv: 1 bad row", f"row {row}: ", found, "--skip-bad-rows"):
        assert part in str(caught.value)
    dataset = load_side(tmp_path, text, "item_features", FEATURES, skip_bad_rows=True)
    found = dataset.dataset.columns["item"].values[:, 1]
    np.testing.assert_array_equal(found, [np.nan, len(lines) - 1 or np.nan, 3.0])
    assert dataset.dataset.dropped == {"bad rows of item columns": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no,height,width\n10,1,1\n", "no column 'id'; .*data.item_features.id_column=NAME"),
        ("id,height\n10,1\n", "no column 'width'; .*data.item_features.columns=NAME"),
        ("id,height,width\n", "has no rows"),
        ("id,height,width\nten,1,1\n", "column 'id' has no ID of the interactions; it has 'ten', they have '10', '20'"),
    ],
)
def test_unusable_feature_tables(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError, match=rf"f\.csv: .*{expected}"):
        load_side(tmp_path, text, "item_features", FEATURES)


def test_titles(tmp_path: Path) -> None:
    titles = {"path": "t.item", "id_column": "item_id", "columns": ["name"]}
    text = "item_id:token\tname:token_seq\n30\tOne, two\n10\tÉt\n20\t\n77\tno one\n"
    dataset = load_side(tmp_path, text, "item_titles", titles)
    assert dataset.dataset.titles is not None
    assert dataset.dataset.titles.tolist() == ["Ét", None, "One, two"]
    odd = load_side(tmp_path, text.replace("Ét", "\0").replace("One, two", ""), "item_titles", titles)
    assert odd.dataset.titles is not None
    assert odd.dataset.titles.tolist() == ["\0", None, None]
    with pytest.raises(DataError, match=r"data\.item_titles\.columns=.*expected one column"):
        load_side(tmp_path, text, "item_titles", {**titles, "columns": ["name", "item_id"]})
