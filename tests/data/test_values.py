"""Times and IDs of every kind come out as they went in, whatever the format of the file; features are standardised."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from input_files import arrow, parquet, put, read, refused

from dist_gat import api
from dist_gat.config.files import parse_config
from dist_gat.graph.part import open_prepared

NOON = 1_600_000_200


@pytest.mark.parametrize(
    ("first", "second", "unit"),
    [
        (NOON, NOON + 1, "s"),
        (NOON * 1000, NOON * 1000 + 1000, "ms"),
        (NOON * 10**6, NOON * 10**6 + 10**6, "us"),
        (f"{NOON}.5", f"{NOON + 1}.5", "s"),
        ("2020-09-13T12:30:00Z", "2020-09-13 14:30:01+02", ""),
        ("2020-09-13 12:30", "2020-09-13T12:30:01", ""),
        ("2020-09-13T18:00:00.000000+05:30", "2020-09-13T07:30:01-05:00", ""),
        (f"{NOON}", "2020-09-13T12:30:01", "s"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_times(tmp_path: Path, name: str, first: Any, second: Any, unit: str) -> None:
    """Numbers get the unit of their size, which is told; text is ISO 8601, in UTC where it has no zone."""
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": [first, second]})
    put(tmp_path, {"t.csv": frame.write_csv(), "t.parquet": parquet(frame.to_arrow())})
    loaded = read(tmp_path, name)
    half = 500_000 if str(first).endswith(".5") else 0
    assert [row[2] for row in loaded.rows()] == [NOON * 10**6 + half, (NOON + 1) * 10**6 + half]
    assert loaded.dataset.notes["time_unit"] == ({"interactions": unit} if unit else {})


@pytest.mark.parametrize(("unit", "factor"), [("s", 10**6), ("ms", 1000), ("us", 1)])
def test_a_unit_that_is_given(tmp_path: Path, unit: str, factor: int) -> None:
    put(tmp_path, {"t.csv": "user_id,item_id,timestamp\n1,1,86400\n1,2,172800\n"})
    assert [row[2] for row in read(tmp_path, "t.csv", time_unit=unit).rows()] == [86400 * factor, 172800 * factor]


def test_times_of_several_units(tmp_path: Path) -> None:
    put(tmp_path, {"t.csv": f"user_id,item_id,timestamp\n1,1,0\n1,2,{NOON}\n1,3,{NOON}000\n1,4,{NOON}\n"})
    expected = [f"2 look like seconds (row 3: {NOON})", f"1 look like milliseconds (row 4: {NOON}000)"]
    refused(["t.csv: times of several units", *expected, "data.time_unit"], tmp_path, "t.csv")
    found = [row[2] // 1000 for row in read(tmp_path, "t.csv", time_unit="ms").rows()]
    assert found == [0, NOON, NOON * 1000, NOON]


LARGE = 2**53 + 1
UUIDS = [str(uuid.UUID(int=number << 90)) for number in (3, 5)]


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        ([LARGE, LARGE + 1], pl.Int64),
        ([-(2**63), 2**63 - 1], pl.Int64),
        (["007", "7"], pl.String),
        (UUIDS, pl.String),
        (["1", "x"], pl.String),
        (["a b", "日本"], pl.String),
        (["'; drop table t; --", '"'], pl.String),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl", "t.arrow"])
def test_ids_stay_as_they_are(tmp_path: Path, name: str, ids: list[Any], dtype: Any) -> None:
    frame = pl.DataFrame({"user_id": ids, "item_id": [1, 2]})
    whole = {"t.csv": frame.write_csv(), "t.parquet": parquet(frame.to_arrow()), "t.jsonl": frame.write_ndjson()}
    put(tmp_path, {**whole, "t.arrow": arrow(pa.ipc.new_file, frame.to_arrow())})
    users = read(tmp_path, name).users
    assert (users.to_list(), users.dtype) == (sorted(ids), dtype)


def test_ids_beyond_64_bits_with_a_sign(tmp_path: Path) -> None:
    ids = pl.Series([2**63, 2**64 - 1], dtype=pl.UInt64)
    frame = pl.DataFrame({"user_id": ids, "item_id": [1, 2]})
    put(tmp_path, {"t.parquet": parquet(frame.to_arrow()), "t.csv": frame.write_csv()})
    assert read(tmp_path, "t.parquet").users.to_list() == ids.to_list()
    assert read(tmp_path, "t.csv").users.to_list() == sorted(ids.cast(pl.String))


def test_uuids_of_parquet(tmp_path: Path) -> None:
    ids = pa.array([uuid.UUID(text).bytes for text in UUIDS], pa.uuid())
    put(tmp_path, {"t.parquet": parquet(pa.table({"user_id": ids, "item_id": [1, 2]}))})
    assert read(tmp_path, "t.parquet").users.to_list() == UUIDS


def test_ids_that_stand_for_none(tmp_path: Path) -> None:
    put(tmp_path, {"t.csv": "user_id,item_id\n" + "NULL,x\nann,x\nNULL,y\nbo,y\nbo, -1\n"})
    loaded = read(tmp_path, "t.csv")
    assert "NULL" in loaded.users.to_list()
    (warning,) = (text for text in loaded.dataset.warnings if "NULL" in text)
    assert "user 'NULL' has 2 of 5 rows (40.0%)" in warning
    assert "data.missing=\"['NULL']\"" in warning
    without = read(tmp_path, "t.csv", missing=["NULL", "-1"])
    assert without.pairs() == [("ann", "x"), ("bo", "y")]
    assert without.dataset.dropped == {"rows of missing IDs": 3}
    assert without.dataset.warnings == []


def test_one_id_in_several_writings(tmp_path: Path) -> None:
    put(tmp_path, {"t.csv": "user_id,item_id\nAnn,3\nann,3.0\nann,x\n"})
    warnings = "\n".join(read(tmp_path, "t.csv").dataset.warnings)
    assert "1 users may be one written in several ways, for example 'Ann' and 'ann'" in warnings
    assert "'3' and '3.0'" in warnings


def test_features_are_standardised_by_the_nodes_of_training(tmp_path: Path) -> None:
    """Mean and deviation are those of training nodes that have a row, and are kept in the manifest."""
    clicks = {"train": [(1, 10), (1, 20), (2, 20), (2, 40)], "test": [(1, 30), (2, 10)]}
    tables = {name: pl.DataFrame(rows, ["user_id", "item_id"], orient="row") for name, rows in clicks.items()}
    tables["sizes"] = pl.DataFrame({"sku": [10, 20, 30, 99], "size": [1.0, 3.0, 7.0, 100.0], "one": [5, 5, 5, 6]})
    config = parse_config({
        "name": "shop",
        "data": {"train": "train", "test": "test", "split": {"method": "files"}, "prepared": str(tmp_path / "p"),
                 "item_features": {"path": "sizes", "id_column": "sku", "columns": ["size", "one"]}},
        "parts": {"num_parts": 1, "method": "range"},
        "launch": {"num_workers": 1},
    })  # fmt: skip
    report = api.prepare(config, tables=tables)
    assert open_prepared(tmp_path / "p").manifest["columns"] == report["columns"]
    _, *found = report["columns"]["item"]
    assert [(one["name"], one["mean"], one["deviation"], one["num_values"]) for one in found] == [
        ("size", [2.0], [1.0], 3), ("one", [5.0], [1.0], 3)
    ]  # fmt: skip
    values = np.load(tmp_path / "p" / "parts" / "0000" / "features" / "item.npy")
    np.testing.assert_array_equal(values, [[1, -1, 0], [1, 1, 0], [0, 5, 0], [1, np.nan, np.nan]])
    assert any("1 of 4 items have no row in sizes" in warning for warning in report["warnings"])
