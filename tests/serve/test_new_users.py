"""New users get the bits of users of the graph without an ID row: alone or together, in Python or on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import ITEM, USER
from recipes import prepare_and_train
from serve_cases import met_in_training, recipe_of, save_without_id_rows
from small_world import world_recipe, write_world
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.cli.main import app
from dist_gat.config.sections import Config
from dist_gat.graph.part import open_prepared
from dist_gat.serve.new_nodes import open_new_nodes
from dist_gat.serve.new_users import open_new_users
from dist_gat.serve.ranker import open_ranker

TIMES = ["relation", "weight", "age", "rank"]
MODELS: dict[str, dict[str, Any]] = {
    "dot": {"model": {"terms": TIMES, "num_heads": 2}},
    "degree": {"model": {"scoring": "degree", "terms": ["degree", "category"], "combination": "mean"}},
    "additive": {"model": {"scoring": "additive_v2", "num_heads": 2, "terms": TIMES, "combination": "concat"}},
    "gated": {"model": {"softmax": "relation", "projection": "relation", "terms": ["weight"], "weight_scale": "log"}},
    "popular": {"model": {"decoder": {"kind": "cosine", "popularity": True}}},
    "strict": {"model": {"terms": TIMES}, "sampling": {"time": "strict"}},
    "silent": {"model": {"terms": TIMES}, "sampling": {"relations": {"interacts_reversed": {"fanouts": [0, 2]}}}},
    "deep": {"sampling": {"fanouts": [2, 2, 2]}, "model": {"scoring": "degree_dot"}},
    "ratings": {"task": {"kind": "rating"}, "train": {"metric": "rmse"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    api.prepare(recipe_of(folder, "run"))
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_new_user_is_a_user_of_the_graph_without_an_id_row(world: Path, name: str) -> None:
    config = recipe_of(world, f"run-{name}", **MODELS[name])
    saved = save_without_id_rows(config)
    new = open_new_users(open_ranker(saved.model), open_new_nodes(saved.model))
    for node in saved.absent[USER]:
        history = met_in_training(saved.prepared, node)
        assert len(history.items) > 2
        assert torch.equal(new.representation(history)[0], saved.representation_NR[node]), node
        # biases of ratings are products of all rows at once, which round otherwise
        torch.testing.assert_close(new.ranking_row(history)[0], saved.rows_NR[node], rtol=1e-5, atol=1e-6)


def test_filters_see_a_new_user_as_one_of_the_graph(world: Path) -> None:
    blend = {
        "spectral_rank": 6, "spectral_weight": 0.7, "linear": True, "linear_weight": 0.4, "linear_deflation": 3,
        "edge_weights": "log", "half_life": 4,
    }  # fmt: skip
    config = recipe_of(world, "run-blend", blend=blend)
    saved = save_without_id_rows(config)
    model, rows = saved.model, saved.rows_NR
    histories = {node: met_in_training(saved.prepared, node) for node in saved.absent[USER]}
    known = open_ranker(model)
    new = open_new_users(known, open_new_nodes(model))
    for node, history in histories.items():
        expected = known.rows_of_users(np.array([node]))
        assert expected.shape[1] > rows.shape[1]
        np.testing.assert_allclose(new.ranking_row(history).numpy(), expected, rtol=2e-4, atol=2e-5)
        profile = known.profiles_of(np.array([node])).toarray()
        np.testing.assert_allclose(new.profile(history).toarray(), profile, rtol=1e-5)
    names = pl.Series("user_id", [history.name for history in histories.values()])
    together = known.table_of(names, known.best(new.ranked(list(histories.values())), 30))
    each = [known.best(new.ranked([history]), 30) for history in histories.values()]
    alone = pl.concat(known.table_of(names[n : n + 1], best) for n, best in enumerate(each))
    assert together.equals(alone)
    for history in histories.values():
        own = together.filter(pl.col("user_id") == history.name)
        met = set(history.items.tolist())
        item_of = dict(model.ids(ITEM).select("external_id", "node_id").rows())
        assert not met & {item_of[item] for item in own["item_id"]}
        assert own["score"].is_sorted(descending=True)


@pytest.fixture(scope="module")
def trained(world: Path) -> Config:
    config = world_recipe(world, "run-trained", data={"prepared": str(world / "prepared-all")}, model={"terms": TIMES})
    prepare_and_train(config)
    return config


NEW: list[dict[str, Any]] = [
    {"user": "ann", "items": ["i3", "i7", "i12"], "weights": [5, 1, 3], "times": [1.1e9, 1.2e9, 1.15e9]},
    {"user": "bob", "items": ["i1", "i2"]},
    {"user": "eve", "items": ["i29", "nothing known", "i1"], "times": ["2011-01-01", "2010-01-01", "2012-01-01T10:00"]},
    {"user": "new", "items": []},
]


def test_the_same_from_the_terminal_from_python_from_a_table_alone_and_together(
    trained: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, told = tmp_path / "new.jsonl", []
    lines.write_text("\n".join(json.dumps(user) for user in NEW) + "\n")
    assert len(api.recommend(trained.run_folder, new_users=[])) == 0
    together = api.recommend(trained.run_folder, new_users=NEW, k=6, progress=told.append)
    assert together["user_id"].unique(maintain_order=True).to_list() == ["ann", "bob", "eve", "new"]
    assert "1 items are unknown" in told[0]
    assert "nothing known" in told[0]
    assert "new: no interactions" in told[1]
    assert api.recommend(trained.run_folder, new_users=str(lines), k=6).equals(together)
    alone = [api.recommend(trained.run_folder, new_users=[user], k=6) for user in NEW]
    assert pl.concat(alone).equals(together)
    capfd.readouterr()
    asked = ["recommend", str(trained.run_folder), "--new-users", str(lines), "--k", "6", "--json"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert json.loads(capfd.readouterr().out)["recommendations"] == together.to_dicts()
    rows = [(user["user"], item) for user in NEW[1:2] for item in user["items"]]
    table = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    assert api.recommend(trained.run_folder, new_users=table, k=6).equals(alone[1])
    table.write_csv(tmp_path / "new.csv")
    assert api.recommend(trained.run_folder, new_users=tmp_path / "new.csv", k=6).equals(alone[1])


def test_without_a_history_the_most_popular(trained: Config) -> None:
    found = api.recommend(trained.run_folder, new_users=[{"user": "new", "items": []}], k=5)
    prepared = open_prepared(trained.data.prepared)
    item_of = dict(prepared.ids(ITEM).select("external_id", "node_id").rows())
    degree = np.zeros(prepared.ranges.num_nodes)
    for part in prepared.parts:
        np.add.at(degree, part.pairs(prepared.schema.relations[0], "train")[:, 1], 1)
    assert found["score"].to_list() == sorted(degree.tolist(), reverse=True)[:5]
    assert [degree[item_of[item]] for item in found["item_id"]] == found["score"].to_list()


def test_the_order_of_the_list_is_that_of_time(trained: Config) -> None:
    one, other = ({"user": "x", "items": items} for items in (["i1", "i2", "i3"], ["i3", "i2", "i1"]))
    timed = {"user": "x", "items": ["i3", "i1", "i2"], "times": [3e-6, 1e-6, 2e-6]}
    lists = [api.recommend(trained.run_folder, new_users=[user], k=3) for user in (one, other, timed)]
    assert not lists[0].equals(lists[1])
    assert lists[0].equals(lists[2])


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"user": "x"}, "expected"),
        ({"user": "x", "items": ["a"], "weights": [1, 2]}, "weights is no list of 1"),
        ({"user": "x", "items": ["a"], "weights": ["nan"]}, "finite numbers"),
        ({"user": "x", "items": ["a"], "times": ["2010-31-31"]}, "dates"),
        ({"user": "x", "items": [None]}, "no ID"),
        ({"user": "x", "items": [], "columns": {"age": 3}}, "no column .age. of user"),
        ({"user": "x", "items": [], "itmes": []}, "unknown key"),
        ("x", "expected"),
    ],
)
def test_what_cannot_be_read_is_an_error(trained: Config, user: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        api.recommend(trained.run_folder, new_users=[user])


def test_a_user_twice_and_known_users_beside_new_ones_are_errors(trained: Config) -> None:
    with pytest.raises(DataError, match="again"):
        api.recommend(trained.run_folder, new_users=[{"user": "x", "items": []}, {"user": "x", "items": []}])
    with pytest.raises(ConfigError, match="without users"):
        api.recommend(trained.run_folder, users=["u1"], new_users=[])
