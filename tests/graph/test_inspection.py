"""What `inspect` says of a prepared folder, against the table that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import prepare, prepare_pairs, random_pairs

from dist_gat.graph import inspection
from dist_gat.graph.inspection import inspect_prepared, repeated_in_words
from dist_gat.graph.part import PreparedGraph

# item 6 is in valid and test alone, item 7 in test alone; user 0 has 5 items
TRAIN = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (2, 1), (3, 5)]
VALID = [(1, 6), (2, 2)]
TEST = [(0, 6), (1, 7), (3, 0)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    return prepare_pairs(tmp_path_factory.mktemp("small"), TRAIN, VALID, TEST, num_parts=2, seed=1)


def test_counts(small: PreparedGraph) -> None:
    found = inspect_prepared(small)
    assert found["name"] == "test"
    assert found["num_nodes"] == {"user": 4, "item": 8}
    assert found["pairs"] == {"interacts": {"train": 9, "valid": 2, "test": 3}}
    assert found["messages"] == 18
    assert (found["labels"], found["time"]) == ({"interacts": {}}, None)
    assert (found["dropped"], found["repeated"]) == ({}, {})
    assert "1 of 2 items" in found["warnings"][0], "the one that is cold"


def test_repeated_pairs_in_words() -> None:
    repeated = {"plays": {"rows": 1200, "rules": {"weight": "sum", "time": "last"}}, "tags": {"rows": 3, "rules": {}}}
    assert repeated_in_words(repeated) == [
        "1,200 rows of plays had a pair again, which stays once: weight sum, time last",
        "3 rows of tags had a pair again, which stays once",
    ]


def test_degrees_in_bins_that_double(small: PreparedGraph) -> None:
    degrees = inspect_prepared(small)["degrees"]
    assert degrees["user"] == {
        "isolated": 0, "mean": 9 / 4, "max": 5,
        "histogram": [
            {"first": 0, "last": 0, "nodes": 0}, {"first": 1, "last": 1, "nodes": 2},
            {"first": 2, "last": 3, "nodes": 1}, {"first": 4, "last": 7, "nodes": 1},
        ],
    }  # fmt: skip
    assert [row["nodes"] for row in degrees["item"]["histogram"]] == [2, 4, 2]
    assert (degrees["item"]["isolated"], degrees["item"]["max"]) == (2, 3)


def test_cold_nodes(small: PreparedGraph) -> None:
    assert inspect_prepared(small)["cold"] == {
        "user": {"nodes": 0, "pairs": {"valid": 0, "test": 0}},
        "item": {"nodes": 2, "pairs": {"valid": 1, "test": 2}},
    }


@pytest.mark.parametrize("block", [1, 5, 10**6])
def test_parts(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "BLOCK", block)
    pairs = random_pairs(20, 12, 0.3)
    prepared = prepare_pairs(tmp_path, pairs, num_parts=3)
    found = inspect_prepared(prepared)
    part_of = {}
    for kind in ("user", "item"):
        table = prepared.ids(kind)
        parts = prepared.ranges.part_of(table["node_id"].to_numpy())
        part_of |= {(kind, int(node)): int(part) for node, part in zip(table["external_id"], parts, strict=True)}
    ends = [(part_of["user", user], part_of["item", item]) for user, item in pairs]
    for number, part in enumerate(found["parts"]):
        received = [two for one in ends for two in (one, one[::-1]) if two[0] == number]
        assert part["messages"] == len(received)
        assert part["remote"] == pytest.approx(np.mean([target != source for target, source in received]))
        assert part["pairs"]["train"] == sum(user == number for user, _ in ends)
        assert part["nodes"] == {
            kind: sum(of == number for (of_kind, _), of in part_of.items() if of_kind == kind) for kind in part["nodes"]
        }
    assert found["partition"]["edge_cut"] == pytest.approx(np.mean([user != item for user, item in ends]))


def test_labels_times_and_what_was_dropped(tmp_path: Path) -> None:
    rows = ["u,i,2.0,86400", "v,i,4.0,172800", "v,j,4.0,100", "w,j,nan,5"]
    (tmp_path / "t.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]))
    settings: dict[str, Any] = {
        "interactions": "t.csv",
        "split": {"method": "random", "valid_ratio": 0, "test_ratio": 0},
        "skip_bad_rows": True,
    }
    found = inspect_prepared(prepare(tmp_path, settings, 1, "range"))
    assert found["labels"]["interacts"]["weight"]["levels"] == [2.0, 4.0]
    assert found["labels"]["interacts"]["weight"]["counts"] == [1, 2]
    assert found["time"] == {"first": "1970-01-01T00:01:40+00:00", "last": "1970-01-03T00:00:00+00:00"}
    assert found["dropped"] == {"bad rows": 1}
    assert found["parts"][0]["remote"] == 0.0


def test_an_empty_part_has_no_share(empty_part: PreparedGraph) -> None:
    part = inspect_prepared(empty_part)["parts"][1]
    assert (part["messages"], part["remote"]) == (0, None)


def test_says_where_it_is(small: PreparedGraph) -> None:
    said: list[str] = []
    inspect_prepared(small, said.append)
    assert said == [
        "looking at messages of part 1 of 2", "looking at messages of part 2 of 2", "looking for cold nodes",
    ]  # fmt: skip
