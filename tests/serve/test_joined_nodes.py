"""New nodes hear of the same neighbours as in the graph, whether these are named, in tables, or found by columns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch
from helpers import ITEM, USER
from serve_cases import COLUMNS, Saved, met_in_training, save_without_id_rows, write_columns
from small_world import ITEMS, RELATIONS, world_recipe, write_world
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.cli.main import app
from dist_gat.evaluate import inference
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.graph.part import part_folder
from dist_gat.sampling.edge_columns import stored_columns
from dist_gat.serve.joined_nodes import JoinedNodes
from dist_gat.serve.nearest_known import open_nearest
from dist_gat.serve.new_columns import open_columns
from dist_gat.serve.new_edges import read_new_edges
from dist_gat.serve.new_nodes import open_new_nodes
from dist_gat.serve.saved_model import SavedModel

SIMILAR, K = ["genres", "sound", "words"], 3
BAG = {"kind": "categories", "table": "words.npz", "ids": "items.parquet", "max_length": 5, "weights": "tf_idf"}
WORDS = {"kind": "vector", "table": "words.npz", "ids": "items.parquet", "reduce": 4}
CITES: dict[str, Any] = {
    "table": "cites.csv", "source": "item", "target": "item",
    "columns": {"source": "one", "target": "other", "category": "how", "weight": "weight"},
}  # fmt: skip
DATA: dict[str, Any] = {
    "relations": {
        **{name: RELATIONS[name] for name in ("tags", "kg", "friends", "follows")},
        "similar": {"nearest": {"columns": SIMILAR, "k": K}, "source": "item", "target": "item"},
        "cites": CITES,
    },
    "nodes": {
        **COLUMNS,
        "item": {**COLUMNS["item"], "columns": {**COLUMNS["item"]["columns"], "words": WORDS, "bag": BAG}},
    },
}
TABLES = {"tags": "tags.csv", "cites": "cites.csv"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved]:
    """What is known of each node, and a model of random weights, where some have no ID row."""
    folder = tmp_path_factory.mktemp("joined")
    raw, rng = folder / "raw", np.random.default_rng(8)
    write_world(raw)
    known = write_columns(raw)
    words = scipy.sparse.csr_array(scipy.sparse.random_array((ITEMS, 20), density=0.3, rng=rng)).astype(np.float32)
    words.data = np.ceil(5 * words.data)
    scipy.sparse.save_npz(raw / "words.npz", words)
    for n in range(ITEMS):
        row = words[[n]]
        known[ITEM][f"i{n}"]["words"] = dict(zip(map(str, row.indices), row.data.tolist(), strict=True))
        known[ITEM][f"i{n}"]["bag"] = known[ITEM][f"i{n}"]["words"]
    ends = rng.choice(ITEMS, (80, 2))
    rows = [(f"i{a}", f"i{b}", f"c{rng.integers(2)}", float(rng.integers(1, 9))) for a, b in ends.tolist() if a != b]
    cites = [*rows, (*rows[0][:3], 20.0), (rows[1][1], rows[1][0], *rows[1][2:])]  # one again, one the other way
    pl.DataFrame(cites, schema=["one", "other", "how", "weight"], orient="row").write_csv(raw / "cites.csv")
    model = {"terms": ["relation", "category", "weight"], "num_heads": 2}
    config = world_recipe(folder, "run", data=DATA, model=model)
    api.prepare(config)
    with pytest.MonkeyPatch.context() as patch:
        # one node at a time, as new ones are computed: a product of other shapes rounds differently
        patch.setattr(inference, "INPUT_ROWS", 1)
        return folder, known, save_without_id_rows(config, (USER, ITEM))


def graph_edges(saved: Saved, node: int, way: int) -> dict[str, np.ndarray]:
    """What the graph has of a node along one edge type: `src`, and what edges carry."""
    prepared, part_of = saved.prepared, saved.prepared.ranges.part_of(np.array([node]))
    part = prepared.parts[int(part_of[0])]
    at, row = np.array([node - part.first_node]), int(part.rows.of(np.array([node]))[0]) + prepared.schema.slot_of[way]
    start, stop = (int(part.indptr[one]) for one in (row, row + 1))
    first = int(part.node_starts[at[0]])
    stored = stored_columns(part, prepared.schema, at, ("category", "weight"))
    own = {name: values[start - first : stop - first] for name, values in stored.items()}
    return {"src": np.array(part.indices[start:stop], np.int64), **own}


def ways_of(saved: Saved) -> dict[str, int]:
    return {one.name: number for number, one in enumerate(saved.prepared.schema.edge_types)}


def names_of(saved: Saved, kind: str) -> dict[int, str]:
    return dict(saved.prepared.ids(kind).select("node_id", "external_id").rows())


def test_tables_bring_the_edges_of_the_graph_and_columns_its_nearest(
    world: tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, known, saved = world

    # as `prepare` wrote them: frequencies are those of nodes that training meets, and these were made absent later
    def item_columns(model: SavedModel, part: int) -> np.ndarray:
        return np.load(part_folder(saved.prepared.folder, part) / "features" / f"{ITEM}.npy")

    monkeypatch.setattr(SavedModel, "item_columns", item_columns)
    model, ways, told = saved.model, ways_of(saved), list[str]()
    nodes, columns = open_new_nodes(model), open_columns(model, ITEM)
    joined = JoinedNodes(nodes, ITEM, "")
    names = names_of(saved, ITEM)
    asked = [names[node] for node in saved.absent[ITEM]]
    tables = {name: folder / "raw" / file for name, file in TABLES.items()}
    found = read_new_edges(tables, joined, asked, told.append)
    assert any("new edges of tags" in line and "are left out" in line for line in told)
    near = dataclasses.replace(open_nearest(model, SIMILAR, K), k=K + 1)
    for node in saved.absent[ITEM]:
        own = found[names[node]]
        row_W = columns.row(known[ITEM][names[node]], "here")
        assert row_W is not None
        # the graph has the node itself, which is its own nearest
        history = near.of(names[node], row_W)
        own[ways["similar"]] = history.part(np.flatnonzero(history.items != node)[:K])
        for name in ("similar", "tags", "cites"):
            expected = graph_edges(saved, node, ways[name])
            ordered = nodes.messages(ways[name], own[ways[name]])
            np.testing.assert_array_equal(ordered.items, expected["src"], name)
            if name != "tags":
                assert ordered.weights is not None
                np.testing.assert_array_equal(ordered.weights, expected["weight"], name)
            if name == "cites":
                assert ordered.categories is not None
                np.testing.assert_array_equal(ordered.categories, expected["category"])
        own[ways["interacts_reversed"]] = met_in_training(saved.prepared, node)
        for name in ("kg-item-entity", "kg-item-item"):
            edges = graph_edges(saved, node, ways[name])
            own[ways[name]] = History("kg", edges["src"], categories=edges["category"].astype(np.int64))
        representation = nodes.representation(ITEM, row_W, own)
        assert torch.equal(representation[0], saved.representation_NR[node])


def test_new_users_bring_friends(world: tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved]) -> None:
    folder, known, saved = world
    nodes, ways, names = open_new_nodes(saved.model), ways_of(saved), names_of(saved, USER)
    joined = JoinedNodes(nodes, USER, "")
    tables = {name: folder / "raw" / f"{name}.csv" for name in ("friends", "follows")}
    asked = [names[node] for node in saved.absent[USER]]
    found = read_new_edges(tables, joined, asked, lambda _: None)
    for node in saved.absent[USER]:
        row_W = open_columns(saved.model, USER).row(known[USER][names[node]], "here")
        own = {**found.get(names[node], {}), ways["interacts"]: met_in_training(saved.prepared, node)}
        for name in tables:
            if ways[name] in own:  # one is a friend of itself, whom `prepare` leaves out
                own[ways[name]] = own[ways[name]].part(np.flatnonzero(own[ways[name]].items != node))
            expected = graph_edges(saved, node, ways[name])["src"]
            heard = own[ways[name]].items if ways[name] in own else np.zeros(0, np.int64)
            np.testing.assert_array_equal(heard, expected, name)
        assert torch.equal(nodes.representation(USER, row_W, own)[0], saved.representation_NR[node])
        # the same friends by name, in any order and twice
        friends = [names[one] for one in own[ways["friends"]].items.tolist()][::-1] if ways["friends"] in own else []
        by_name = joined.histories("x", {"friends": [*friends, *friends[:1]]}, "here")
        np.testing.assert_array_equal(
            nodes.messages(ways["friends"], by_name[ways["friends"]]).items,
            own[ways["friends"]].items if friends else [],
        )
    plain, user = {"user": "ann", "items": ["i1"]}, {"user": "ann", "items": ["i1"], "relations": {"friends": ["u3"]}}
    without, found_table = (api.recommend(saved.model.folder, k=5, new_users=[one]) for one in (plain, user))
    assert not without["score"].equals(found_table["score"])
    told: list[str] = []
    api.recommend(saved.model.folder, k=5, new_users=[{**user, "items": []}], progress=told.append)
    assert not any("no interactions" in line for line in told), "something is known of this user"


def test_items_with_edges_and_words_from_files_and_from_python(
    world: tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = world[2].model
    items = [{"item": "x", "columns": {"genres": ["g1"], "sound": [1, 0, 2, 0, 1], "words": {"3": 2, "0": 1}}}]
    cites = pl.DataFrame({"one": ["x", "i4", "i1"], "other": ["i3", "x", "i2"], "how": "c1", "weight": [4.0, 2.0, 1.0]})
    told: list[str] = []
    found = api.recommend(
        model.folder, ["u5"], 99, new_items=items, new_edges={"cites": cites}, progress=told.append
    ).filter(item_id="x")  # fmt: skip
    assert any("1 of 3 rows don't join a new item with a item" in line for line in told)
    without = api.recommend(model.folder, ["u5"], 99, new_items=items).filter(item_id="x")
    assert not found["score"].equals(without["score"])
    lines, table = tmp_path / "items.jsonl", tmp_path / "cites.parquet"
    lines.write_text("\n".join(map(json.dumps, items)))
    cites.write_parquet(table)
    capfd.readouterr()
    asked = ["recommend", str(model.folder), "--user", "u5", "--new-items", str(lines), "--k", "99", "--json"]
    assert CliRunner().invoke(app, [*asked, "--new-edges", f"cites={table}"]).exit_code == 0
    printed = json.loads(capfd.readouterr().out)["recommendations"]
    assert [row for row in printed if row["item_id"] == "x"] == found.to_dicts()
    # by name instead, as far as its own edges go
    named = [{**items[0], "relations": {"cites": [{"id": "i3", "weight": 4, "category": "c1"}]}}]
    by_name = api.recommend(model.folder, ["u5"], 99, new_items=named).filter(item_id="x")
    half = api.recommend(model.folder, ["u5"], 99, new_items=items, new_edges={"cites": cites[:1]}).filter(item_id="x")
    assert by_name.equals(half)
    entities = [{**items[0], "relations": {"kg-item-entity": [{"id": "e1", "category": "r0"}]}}]
    of_kg = api.recommend(model.folder, ["u5"], 99, new_items=entities).filter(item_id="x")
    assert not of_kg["score"].equals(without["score"])


@pytest.mark.parametrize(
    ("item", "edges", "words"),
    [
        ({"relations": {"similar": ["i1"]}}, {}, "made from columns"),
        ({"relations": {"cites": ["i1"]}}, {}, "have categories"),
        ({"relations": {"cites": [{"id": "i1", "kind": 3}]}}, {}, 'expected {"id"'),
        ({"relations": {"cites": [{"id": "i1", "category": "c0"}, {"id": "i2"}]}}, {}, "has no category"),
        ({"relations": {"tags": [{"id": "t1", "weight": 3}]}}, {}, "edges of tags have no weight"),
        ({"relations": {"cites": [{"id": "i1", "category": "c0", "weight": "much"}]}}, {}, "finite"),
        ({"columns": {"words": [1, 2]}}, {}, "numbers above 0 by column of the matrix, from 0 to 19"),
        ({"columns": {"words": {"20": 1}}}, {}, "numbers above 0 by column"),
        ({"columns": {"words": {"1": -1}}}, {}, "numbers above 0 by column"),
        ({"columns": {"bag": {"1": 0}}}, {}, "numbers above 0"),
        ({}, {"kg": "tags.csv"}, "no messages along it"),
        ({}, {"kg-item-entity": "tags.csv"}, "same_as"),
        ({}, {"similar": "tags.csv"}, "made from columns"),
        ({}, {"tags": "nothing.csv"}, "nothing.csv"),
        ({}, {"cites": "tags.csv"}, "one"),
        ({"relations": {"tags": ["t1"]}}, {"tags": "new_tags.csv"}, "give them in one place"),
    ],
)
def test_what_cannot_be_joined_is_an_error(
    world: tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved], item: dict[str, Any], edges: dict[str, str],
    words: str,
) -> None:  # fmt: skip
    raw = world[0] / "raw"
    (raw / "new_tags.csv").write_text("item_id,tag_id\nx,t1\n")
    tables = {name: raw / file for name, file in edges.items()}
    with pytest.raises(DataError, match=words):
        api.recommend(world[2].model.folder, ["u1"], new_items=[{"item": "x", **item}], new_edges=tables)


def test_what_is_asked_without_items_or_of_an_older_model_is_an_error(
    world: tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved],
) -> None:
    model = world[2].model
    with pytest.raises(ConfigError, match="goes with new_items"):
        api.recommend(model.folder, ["u1"], new_edges={"tags": "x.csv"})
    older = SavedModel(model.folder, {**model.manifest, "kept_columns": False}, model.ranges, model.relation)
    with pytest.raises(ConfigError, match="saved before new items had nearest neighbours"):
        open_nearest(older, SIMILAR, K)
    asked = ["recommend", str(model.folder), "--user", "u1", "--new-edges", "tags"]
    assert "expected RELATION=FILE" in str(CliRunner().invoke(app, asked).exception)


def test_a_row_of_the_matrix_becomes_what_prepare_made_of_it(
    world: tuple[Path, dict[str, dict[str, dict[str, Any]]], Saved],
) -> None:
    _, known, saved = world
    columns, names = open_columns(saved.model, ITEM), names_of(saved, ITEM)
    own = [one for one in columns.layout if one.name in ("words", "bag", "bag.weights")]
    assert len(own) == 3
    for part in saved.prepared.parts:
        for node, stored in zip(
            saved.prepared.ranges.nodes_of_type(part.number, ITEM), part.features[ITEM], strict=True
        ):
            row_W = columns.row({name: known[ITEM][names[node]][name] for name in ("words", "bag")}, "here")
            assert row_W is not None
            for column in own:
                np.testing.assert_array_equal(
                    row_W[column.slice].view(np.int32), np.array(stored)[column.slice].view(np.int32)
                )
