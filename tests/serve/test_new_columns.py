"""Nodes without ID rows get the same bits from their columns and neighbours as in the graph, users and items."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ITEM, USER
from serve_cases import COLUMNS, Saved, met_in_training, recipe_of, save_without_id_rows, write_columns
from small_world import write_world

from dist_gat import api
from dist_gat.base.errors import DataError
from dist_gat.evaluate import inference
from dist_gat.evaluate.new_user_metrics import History, cold_histories
from dist_gat.graph.part import open_prepared
from dist_gat.serve.new_columns import NewColumns, open_columns
from dist_gat.serve.new_nodes import open_new_nodes

World = tuple[Path, dict[str, dict[str, dict[str, Any]]]]
MODELS: dict[str, dict[str, Any]] = {
    "sum": {"model": {"terms": ["relation", "weight", "age", "rank"], "num_heads": 2}},
    "gate": {"model": {"scoring": "degree", "combination": "mean", "inputs": {"fusion": "gate"}}},
    "attention": {"model": {"scoring": "additive_v2", "combination": "concat", "inputs": {"fusion": "attention"}}},
    "popular": {"model": {"decoder": {"kind": "cosine", "popularity": True}}},
    "strict": {"model": {"terms": ["age"]}, "sampling": {"time": "strict"}},
    "silent": {"sampling": {"relations": {"interacts_reversed": {"fanouts": [0, 2]}}}},
    "without IDs": {"model": {"inputs": {"ids": ["user"]}}},
    "ratings": {"task": {"kind": "rating"}, "train": {"metric": "rmse"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    known = write_columns(folder / "raw")
    api.prepare(recipe_of(folder, "run", ("tags",), data={"nodes": COLUMNS}))
    return folder, known


def saved_model(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> Saved:
    # one node at a time, as new ones are computed: a product of other shapes rounds differently
    monkeypatch.setattr(inference, "INPUT_ROWS", 1)
    config = recipe_of(world[0], f"run-{name}", ("tags",), data={"nodes": COLUMNS}, **MODELS[name])
    return save_without_id_rows(config, (USER, ITEM))


@pytest.mark.parametrize("name", MODELS)
def test_a_node_whose_id_row_is_deleted(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, known = saved_model(world, name, monkeypatch), world[1]
    prepared, nodes = saved.prepared, open_new_nodes(saved.model)
    edge_types = {one.name: number for number, one in enumerate(prepared.schema.edge_types)}
    for kind in (USER, ITEM):
        names = dict(prepared.ids(kind).select("node_id", "external_id").rows())
        for node in saved.absent[kind]:
            row_W = open_columns(saved.model, kind).row(known[kind][names[node]], "here")
            met = met_in_training(prepared, node)
            neighbors = {edge_types["interacts" if kind == USER else "interacts_reversed"]: met}
            if kind == ITEM:
                neighbors[edge_types["tags"]] = History("tags", tags_of(saved, node, edge_types["tags"]))
            found = nodes.representation(kind, row_W, neighbors)
            assert torch.equal(found[0], saved.representation_NR[node]), (kind, node)
            row = nodes.ranking_row(found, len(met.items) if kind == ITEM else None)
            torch.testing.assert_close(row[0], saved.rows_NR[node], rtol=1e-5, atol=1e-6)
            without = nodes.representation(kind, None, neighbors)
            assert torch.equal(without, found) == (row_W is None), "the columns don't count"


def tags_of(saved: Saved, node: int, edge_type: int) -> np.ndarray:
    prepared = saved.prepared
    part = prepared.parts[int(prepared.ranges.part_of(np.array([node]))[0])]
    at = int(part.rows.of(np.array([node]))[0]) + prepared.schema.slot_of[edge_type]
    return np.array(part.indices[part.indptr[at] : part.indptr[at + 1]], np.int64)[::-1]


def test_every_row_is_the_one_that_prepare_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, known = saved_model(world, "sum", monkeypatch), world[1]
    for kind in (USER, ITEM):
        columns = open_columns(saved.model, kind)
        names = dict(saved.prepared.ids(kind).select("node_id", "external_id").rows())
        for part in saved.prepared.parts:
            for node, stored in zip(
                saved.prepared.ranges.nodes_of_type(part.number, kind), part.features[kind], strict=True
            ):
                row = columns.row(known[kind][names[node]], "here")
                row = columns.missing() if row is None else row
                assert np.array_equal(row.view(np.int32)[1:], np.array(stored).view(np.int32)[1:])
                assert row[0] == 0
        assert all("the first 2 categories count" in note for note in columns.notes)


def test_other_ways_to_write_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved_model(world, "sum", monkeypatch).model
    users, items = open_columns(model, USER), open_columns(model, ITEM)
    for one, other in (
        ({"age": 31, "gender": "F"}, {"age": " 31.0 ", "gender": " F "}),
        ({"age": 31}, {"age": 31.0, "gender": "-"}),
        ({"age": 31}, {"age": "31", "gender": None}),
        ({"age": 31}, {"age": "31", "gender": "never seen"}),
    ):
        assert np.array_equal(users.row(one, ""), users.row(other, ""), equal_nan=True)
    assert "'never seen' is no category that training knows" in users.notes[0]
    texts, lists = {"genres": "g1| g3|g1"}, {"genres": ["g1", "nothing", None, "g3"]}
    rows = [items.row(given, "") for given in (texts, lists)]
    assert rows[0] is not None
    assert np.array_equal(rows[0].view(np.int32), rows[1].view(np.int32))  # type: ignore[union-attr]
    for nothing in (None, {}, {"age": None}, {"gender": "-"}, {"gender": "never seen"}):
        assert users.row(nothing, "") is None


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (USER, {"age": "old"}, "columns.age=old: expected finite numbers"),
        (USER, {"age": math.nan}, "finite"),
        (USER, {"age": 1e300}, "finite"),
        (USER, {"age": [3]}, "finite"),
        (USER, {"gender": ["F"]}, "expected text"),
        (USER, {"gender": "F" * 100_000}, "at most 4096 bytes"),
        (USER, {"known": 1}, "no column 'known' of user; expected age, gender"),
        (USER, [31], "expected values by name, expected age, gender"),
        (ITEM, {"cover": [1.0, 2.0]}, "a list of 7 numbers; found 2 of them"),
        (ITEM, {"cover": 3}, "a list of 7 numbers; found none"),
        (ITEM, {"cover": [1, 2, 3, 4, 5, 6, None]}, "finite"),
        (ITEM, {"genres": {"a": 1}}, "expected text"),
    ],
)
def test_what_is_no_value(world: World, kind: str, given: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved_model(world, "sum", monkeypatch).model
    with pytest.raises(DataError, match=words):
        open_columns(model, kind).row(given, "here")


def test_users_whom_a_split_holds_out_are_measured_with_their_columns(world: World, tmp_path: Path) -> None:
    split = {"method": "random", "valid_ratio": 0.1, "test_ratio": 0.1, "cold_users": 0.3}
    data = {"nodes": COLUMNS, "split": split, "prepared": str(tmp_path / "prepared")}
    config = recipe_of(world[0], "run-cold", ("tags",), data=data)
    api.prepare(config)
    prepared = open_prepared(config.data.prepared)
    configs = {source.name: source.config for source in config.data.node_columns[USER]}
    names = {"gender": prepared.categories(USER, "gender")}
    columns = NewColumns(USER, prepared.layouts[USER], configs, names)
    for name in ("valid", "test"):
        histories = cold_histories(prepared, name, None, 0)
        assert len(histories) == prepared.num_cold_users(name) > 3
        for history in histories:
            expected = columns.row(world[1][USER][history.name], "here")
            expected = columns.missing() if expected is None else expected
            assert history.columns is not None
            assert np.array_equal(history.columns.view(np.int32), expected.view(np.int32))
            assert history.part(np.arange(1)).columns is history.columns
