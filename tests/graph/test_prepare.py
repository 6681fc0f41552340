"""What `prepare` writes, against the interactions that it was given."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import (
    INTERACTS,
    ITEM,
    NUM_FEATURES,
    USER,
    WIDTHS,
    adjacency,
    prepare,
    prepare_pairs,
    random_pairs,
    split_pairs,
    tags_of,
)
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.sections import PartsConfig
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset, relabel
from dist_gat.graph.shards import ShardWriter

METHODS = ("metis", "fennel", "range", "hash")
SPLIT = {"method": "temporal", "valid_ratio": 0.1, "test_ratio": 0.2}


def external(prepared: PreparedGraph, kind: str) -> dict[int, Any]:
    """Node ID → external ID."""
    table = prepared.ids(kind)
    return dict(zip(table["node_id"], table["external_id"], strict=True))


def external_pairs(prepared: PreparedGraph, split: str) -> set[tuple[Any, Any]]:
    users, items = external(prepared, "user"), external(prepared, "item")
    return {(users[user], items[item]) for user, item in split_pairs(prepared, split).tolist()}


def write_rows(folder: Path, rows: list[tuple[Any, ...]], columns: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.csv").write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]))


@given(
    st.integers(1, 4).flatmap(lambda p: st.tuples(st.just(p), st.lists(st.integers(0, p - 1), min_size=2))), st.data()
)
def test_relabelling_is_a_bijection_that_the_bounds_describe(case: tuple[int, list[int]], data: st.DataObject) -> None:
    num_parts, parts = case
    num_users = data.draw(st.integers(1, len(parts) - 1))
    labels = relabel(np.array(parts), {USER: num_users, ITEM: len(parts) - num_users}, num_parts)
    nodes = np.concatenate([labels.nodes[USER], labels.nodes[ITEM]])
    assert sorted(nodes) == list(range(len(parts)))
    assert labels.ranges.bounds.shape == (num_parts, 3)
    assert (np.diff(labels.ranges.bounds) >= 0).all()
    assert labels.ranges.part_of(nodes).tolist() == parts
    assert labels.ranges.is_of_type(nodes, ITEM).tolist() == [False] * num_users + [True] * (len(parts) - num_users)
    for part in range(num_parts):  # the raw order is kept within a part, so that files do not depend on chance
        mine = labels.nodes[USER][np.array(parts[:num_users]) == part]
        assert (np.diff(mine) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_splits_and_ids_round_trip(tmp_path: Path, method: str) -> None:
    pairs = random_pairs(20, 15, 0.3)
    new = [next((user, item) for item in range(15) if (user, item) not in pairs) for user in (0, 1)]
    splits = {"train": pairs[:70], "valid": [p for p in pairs[70:80] if p[0] < 10], "test": [(0, 99), (3, 98), new[0]]}
    splits["valid"] = [(pairs[0][0], 97), new[1]]
    prepared = prepare_pairs(tmp_path, **splits, method=method)
    for split, expected in splits.items():
        assert external_pairs(prepared, split) == set(expected)
        assert prepared.num_pairs(INTERACTS, split) == len(expected)
        assert prepared.pair_starts(INTERACTS, split)[-1] == len(expected)
        for part in prepared.parts:
            edges = part.pairs(INTERACTS, split)
            assert edges.dtype == np.int64
            assert (prepared.ranges.part_of(edges[:, 0]) == part.number).all()
            assert edges.tolist() == sorted(edges.tolist())
    for kind in (USER, ITEM):
        nodes = np.array(list(external(prepared, kind)))
        assert prepared.ranges.is_of_type(nodes, kind).all()
        assert prepared.ranges.count(kind) == len(nodes)


@pytest.mark.parametrize("fixture", ["synthetic", "holed", "empty_part"])
def test_messages_are_the_transposed_adjacency_of_training_pairs_alone(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    prepared = request.getfixturevalue(fixture)
    expected = adjacency(prepared).tocsc()
    expected.sort_indices()
    for part in prepared.parts:
        first, last = prepared.ranges.starts[part.number : part.number + 2]
        assert part.num_nodes == last - first
        start, stop = expected.indptr[first], expected.indptr[last]
        np.testing.assert_array_equal(part.indptr, expected.indptr[first : last + 1] - start)
        row = np.repeat(np.arange(part.num_nodes), np.diff(part.indptr))
        np.testing.assert_array_equal(part.indices[np.lexsort((part.indices, row))], expected.indices[start:stop])
        order = np.lexsort(
            (part.indices, -part.edge_column("time"), row) if "time" in part.edge_columns else (part.indices, row)
        )
        np.testing.assert_array_equal(order, np.arange(len(row)))
        assert part.indices.dtype == np.int32
    held_out = np.concatenate([split_pairs(prepared, "valid"), split_pairs(prepared, "test")])
    assert len(held_out)
    dense = adjacency(prepared)
    for user, item in held_out:
        part = prepared.parts[prepared.ranges.part_of(user)]
        row = user - part.first_node
        assert item not in part.indices[part.indptr[row] : part.indptr[row + 1]]
        assert dense[user, item] == 0


def test_weights_and_times_follow_their_edges(tmp_path: Path) -> None:
    pairs = random_pairs(10, 8, 0.5)
    rows = [(u, i, 0.5 + u + i / 16, 1000 + u * 100 + i) for u, i in pairs]
    write_rows(tmp_path, rows, "user_id,item_id,rating,timestamp")
    prepared = prepare(tmp_path, {"interactions": "all.csv", "split": SPLIT}, 3, "hash")
    users, items = external(prepared, "user"), external(prepared, "item")
    seen = 0
    for part in prepared.parts:
        weight = np.load(part.folder / "edge_weight.npy")
        time = np.load(part.folder / "edge_time.npy")
        assert (weight.dtype, time.dtype) == (np.float32, np.int64)
        rows_of = np.repeat(np.arange(part.num_nodes), np.diff(part.indptr)) + part.first_node
        for dst, src, w, t in zip(rows_of.tolist(), part.indices.tolist(), weight, time, strict=True):
            user, item = (users[dst], items[src]) if dst in users else (users[src], items[dst])
            assert w == 0.5 + user + item / 16
            assert t == (1000 + user * 100 + item) * 1_000_000
            seen += 1
    assert seen == 2 * prepared.num_pairs(INTERACTS, "train")


def test_features_and_titles_stand_with_their_nodes(synthetic: PreparedGraph) -> None:
    assert synthetic.feature_sizes == WIDTHS
    names = {column.name: synthetic.categories("item", column.name) for column in synthetic.layouts["item"][3:]}
    for kind in (USER, ITEM):
        ids = external(synthetic, kind)
        for part in synthetic.parts:
            owned = synthetic.ranges.nodes_of_type(part.number, kind)
            rows = part.features[kind]
            assert rows.shape == (len(owned), WIDTHS[kind])
            assert rows.dtype == np.float32
            for node, row in zip(owned, rows, strict=True):
                number = int(ids[node][1:])
                known = kind == "user" or number < 55
                numbers = [number + n / 8 if known else np.nan for n in range(NUM_FEATURES[kind])]
                np.testing.assert_array_equal(row[: 1 + len(numbers)], [1, *numbers])
                codes = row[1 + len(numbers) :].view(np.int32)
                if kind == "item":
                    cluster, *tags = codes
                    found = names["cluster"][int(cluster)] if cluster >= 0 else None
                    assert found == (f"c{number % 5}" if known else None)
                    assert [names["tags"][int(tag)] for tag in tags if tag >= 0] == (tags_of(number) if known else [])
    titles = synthetic.ids("item")
    assert all(
        title.startswith(f"Item {i[1:]} of") for i, title in zip(titles["external_id"], titles["title"], strict=True)
    )
    assert titles["external_id"].is_sorted()


@pytest.mark.parametrize("fixture", ["synthetic", "holed"])
def test_the_report_counts_what_is_there(fixture: str, request: pytest.FixtureRequest) -> None:
    prepared = request.getfixturevalue(fixture)
    report, ranges = prepared.manifest, prepared.ranges
    train = split_pairs(prepared, "train")
    user_part, item_part = ranges.part_of(train[:, 0]), ranges.part_of(train[:, 1])
    messages = Counter([*user_part.tolist(), *item_part.tolist()])
    nodes = np.diff(ranges.starts)
    assert report["partition"]["edge_cut"] == pytest.approx((user_part != item_part).mean())
    assert report["partition"]["node_balance"] == pytest.approx(nodes.max() / nodes.mean())
    assert report["partition"]["edge_balance"] == pytest.approx(max(messages.values()) / (2 * len(train) / 4))
    assert sum(messages.values()) == sum(len(part.indices) for part in prepared.parts)
    assert report["num_nodes"] == {"user": ranges.count(USER), "item": ranges.count(ITEM)}
    degree = np.asarray(adjacency(prepared).sum(axis=1)).ravel()
    for part in prepared.parts:
        mass = degree[list(ranges.nodes_of_type(part.number, ITEM))] ** 0.75
        np.testing.assert_allclose(part.popularity(INTERACTS), np.cumsum(mass))
        assert report["popularity_mass"]["interacts"][part.number] == pytest.approx(mass.sum())


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_input_rows_changes_no_byte(tmp_path: Path, method: str) -> None:
    rows = [(f"u{u}", f"i{i}", u + i, u * i) for u, i in random_pairs(30, 20, 0.2)]
    folders = []
    for name, order in (("one", rows), ("two", list(reversed(rows)))):
        write_rows(tmp_path / name, order, "user_id,item_id,rating,timestamp")
        folders.append(prepare(tmp_path / name, {"interactions": "all.csv", "split": SPLIT}, 4, method))
    assert folders[0].fingerprint == folders[1].fingerprint
    assert folders[0].fingerprint == folders[1].fingerprint
    assert len(folders[0].manifest["files"]) > 20
    other = prepare(tmp_path / "one", {"interactions": "all.csv", "split": {**SPLIT, "test_ratio": 0.3}}, 4, method)
    assert other.fingerprint != folders[0].fingerprint


def test_an_error_halfway_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError):
        prepare_pairs(tmp_path / "a", [(0, 0), (1, 1)], test=[(0, 0)], num_parts=1)
    assert not (tmp_path / "a" / "prepared-hash-1").exists()
    before = prepare_pairs(tmp_path / "b", random_pairs(5, 5, 0.5)).fingerprint

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ShardWriter, "columns", fail)
    for folder, others in (("b", ["prepared-hash-4", "train.csv"]), ("c", ["train.csv"])):
        with pytest.raises(OSError, match="disk full"):
            prepare_pairs(tmp_path / folder, random_pairs(5, 4, 0.5))
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == others
    monkeypatch.undo()
    kept = json.loads((tmp_path / "b" / "prepared-hash-4" / "manifest.json").read_text())
    assert kept["num_nodes"] == {"user": 5, "item": 5}
    assert prepare_pairs(tmp_path / "b", random_pairs(5, 5, 0.5)).fingerprint == before


def test_more_parts_than_nodes_of_a_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parts.num_parts=4 exceeds the 3 nodes of the smaller node type"):
        prepare_pairs(tmp_path, random_pairs(9, 3, 0.5), num_parts=4)
    assert not list(tmp_path.glob("prepared*"))
    assert prepare_pairs(tmp_path, random_pairs(9, 3, 0.5), num_parts=3).ranges.num_parts == 3


def test_the_folder_of_the_interactions_is_never_replaced(tmp_path: Path) -> None:
    """`data.prepared` naming a folder that `prepare` did not write is a slip that must not cost the data in it."""
    write_rows(tmp_path / "raw", random_pairs(5, 5, 0.5), "user_id,item_id")
    settings = {"interactions": "all.csv", "prepared": str(tmp_path / "raw"), "split": {"test_ratio": 0}}
    with pytest.raises(ConfigError, match="data.prepared"):
        prepare(tmp_path / "raw", settings, 2, "hash")
    assert (tmp_path / "raw" / "all.csv").exists()


def test_ids_keep_their_type(tmp_path: Path) -> None:
    assert prepare_pairs(tmp_path, [(10, 7), (2, 30)], num_parts=1).ids("user")["external_id"].to_list() == [2, 10]
    write_rows(tmp_path / "text", [("a", "007"), ("b", "x")], "user_id,item_id")
    settings = {"interactions": "all.csv", "split": {"valid_ratio": 0, "test_ratio": 0}}
    ids = prepare(tmp_path / "text", settings, 1, "hash").ids("item")["external_id"]
    assert (ids.dtype, ids.to_list()) == (pl.String, ["007", "x"])


KILLED = """
import os, sys
sys.path.append({tests!r})
from pathlib import Path
from helpers import DataConfig, PartsConfig, prepare_dataset
data = DataConfig(path={folder!r}, interactions="all.csv", prepared={folder!r} + "/prepared")
def told(message):
    if message.startswith("assigning"):
        os._exit(9)
prepare_dataset("test", data, PartsConfig(num_parts=2, method="hash"), 0, told)
"""


def kill_in_the_middle(folder: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=100).returncode == 9
    assert (folder / ".prepared.work").exists()


def test_goes_on_from_the_last_finished_pass(tmp_path: Path) -> None:
    write_rows(tmp_path, random_pairs(30, 20, 0.3), "user_id,item_id")
    kill_in_the_middle(tmp_path)
    data = DataConfig(path=str(tmp_path), interactions="all.csv", prepared=str(tmp_path / "prepared"))
    parts = PartsConfig(num_parts=2, method="hash")
    said: list[str] = []
    prepare_dataset("test", data, parts, 0, said.append)
    assert not [message for message in said if message.startswith(("reading", "sorting pairs"))]
    gone_on = open_prepared(tmp_path / "prepared").fingerprint
    said.clear()
    prepare_dataset("test", data, parts, 0, said.append)
    assert [message for message in said if message.startswith("reading")]
    assert open_prepared(tmp_path / "prepared").fingerprint == gone_on
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "prepared"]


def test_what_another_table_has_left_is_not_taken_up(tmp_path: Path) -> None:
    write_rows(tmp_path, random_pairs(30, 20, 0.3), "user_id,item_id")
    kill_in_the_middle(tmp_path)
    write_rows(tmp_path, random_pairs(25, 20, 0.3), "user_id,item_id")
    data = DataConfig(path=str(tmp_path), interactions="all.csv", prepared=str(tmp_path / "prepared"))
    prepare_dataset("test", data, PartsConfig(num_parts=2, method="hash"), 0)
    assert open_prepared(tmp_path / "prepared").ranges.count(USER) == 25


@pytest.mark.parametrize("method", ["random", "temporal", "leave_last_out"])
@pytest.mark.parametrize("parts", ["metis", "range", "fennel"])
def test_the_size_of_chunks_and_the_order_of_files_change_no_byte(tmp_path: Path, method: str, parts: str) -> None:
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", (u + i) / 3, int(rng.integers(1, 99))) for u, i in random_pairs(40, 30, 0.3)]
    rows += rows[::7]  # repeated
    write_rows(tmp_path / "one", rows, "user_id,item_id,plays,timestamp")
    for number, some in enumerate((rows[:100], rows[100:])):
        write_rows(tmp_path / f"part{number}", some, "user_id,item_id,plays,timestamp")
    fingerprints = set()
    for names, chunk in (("one/all.csv", None), ("one/all.csv", 5), (["part1/all.csv", "part0/all.csv"], 17)):
        data = DataConfig.model_validate(
            {"path": str(tmp_path), "interactions": names, "prepared": str(tmp_path / "prepared"),
             "split": {"method": method}, "columns": {"weight": "plays"}}
        )  # fmt: skip
        prepare_dataset("test", data, PartsConfig.model_validate({"num_parts": 3, "method": parts}), 0, rows=chunk)
        manifest = open_prepared(tmp_path / "prepared").manifest
        fingerprints.add(json.dumps(manifest["files"], sort_keys=True))
    assert len(fingerprints) == 1


class Pickled:
    """Tasks that get and give pickles, as on another host."""

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks, self.calls = num_tasks, 0

    def __call__(self, function: Any, arguments: Any) -> list[Any]:
        self.calls += len(arguments)
        return [pickle.loads(pickle.dumps(function(*pickle.loads(cloudpickle.dumps(own))))) for own in arguments]


@pytest.mark.parametrize("repeated", ["auto", "count", "error"])
def test_tasks_change_no_byte(tmp_path: Path, repeated: str) -> None:
    rows = [(f"u{u}", i, 1 + (u + i) % 3, u * i) for u, i in random_pairs(40, 30, 0.3)]
    if repeated != "error":
        rows += rows[::5]
    for number in range(3):
        write_rows(tmp_path / "table" / f"day={number}", rows[number::3], "user_id,item_id,plays,timestamp")
    tree = {
        "path": str(tmp_path), "interactions": "table", "prepared": str(tmp_path / "prepared"), "repeated": repeated,
        "columns": {"weight": "plays"}, "split": {"method": "temporal"},
        "relations": {"again": {"interactions": "table/day=1/all.csv"}},
    }  # fmt: skip
    files = []
    for tasks in (None, Pickled(1), Pickled(2), Pickled(7)):
        data, parts = DataConfig.model_validate(tree), PartsConfig(num_parts=2, method="range")
        report = prepare_dataset("test", data, parts, 0, tasks=tasks)
        manifest = open_prepared(tmp_path / "prepared").manifest
        files.append(({key: report[key] for key in ("repeated", "dropped", "labels")}, manifest["files"]))
        assert tasks is None or tasks.calls == 3 + 2 * tasks.num_tasks
    assert all(found == files[0] for found in files)


def test_bad_rows_of_tasks_are_told_as_always(tmp_path: Path) -> None:
    write_rows(tmp_path, [(1, 2), ("", 3)], "user_id,item_id")
    (tmp_path / "b.csv").write_text("user_id,item_id\n1\n2,3\n")
    data = DataConfig.model_validate(
        {"path": str(tmp_path), "interactions": "*.csv", "prepared": str(tmp_path / "prepared")}
    )
    said = []
    for tasks in (None, Pickled(2)):
        with pytest.raises(DataError, match="2 bad rows") as caught:
            prepare_dataset("test", data, PartsConfig(num_parts=1), 0, tasks=tasks)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "row 3 of" in said[0]
    assert "1 fields in '1'" in said[0]
