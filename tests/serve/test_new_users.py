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
from small_world import RELATIONS, world_recipe, write_world
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.cli.main import app
from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import infer_representations
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.exchange.worker import join_workers
from dist_gat.filters.blend import build_blend
from dist_gat.graph.part import open_prepared
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.recommender import build_recommender, untimed_type
from dist_gat.sampling.graph_store import open_store
from dist_gat.serve.new_users import open_new_users, recommend_new
from dist_gat.serve.recommend import open_ranker
from dist_gat.serve.saved_model import open_model, save_model
from dist_gat.tasks.build_task import build_task

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
ZEROED = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    api.prepare(recipe_of(folder, "run"))
    return folder


def recipe_of(folder: Path, run: str, **sections: Any) -> Config:
    relations = {name: RELATIONS[name] for name in ("tags", "kg")}
    config = world_recipe(folder, run, **sections)
    data = config.data.model_copy(
        update={"relations": {k: v for k, v in config.data.relations.items() if k in relations}}
    )
    return config.model_copy(update={"data": data})


def save_with_zero_rows(config: Config) -> tuple[torch.Tensor, torch.Tensor, dict[int, History]]:
    """Save a model of random weights where some users have an ID row of 0.

    Returns representations and ranking rows of all nodes, and what these users have met in training, in any order.
    """
    worker, prepared = join_workers(torch.device("cpu"), 1, 30), open_prepared(config.data.prepared)
    store, task = open_store(prepared, worker.sampling, "auto"), build_task(config, prepared)
    model = build_recommender(
        config.model, len(config.sampling.fanouts), {}, store.ownership, worker.rows, 0, build_head=task.build_head,
        kinds=prepared_kinds(prepared, config.sampling), untimed=untimed_type(config.sampling, task.relation),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.dense.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.table.weight.detach().copy_(torch.randn(model.table.weight.shape, generator=generator))
    histories = {}
    for part in prepared.parts[:ZEROED]:
        users = prepared.ranges.nodes_of_type(part.number, USER)
        pairs = part.pairs(task.relation, "train")
        own = np.flatnonzero(pairs[:, 0] == users[1])
        own = np.random.default_rng(0).permutation(own)
        weights, times = part.labels(task.relation, "train", "weight"), part.times(task.relation, "train")
        histories[users[1]] = History(f"new {users[1]}", pairs[own, 1], weights[own], times[own])
        model.table.weight.detach()[users[1]] = 0
    depths: list[torch.Tensor] = []
    # one destination a chunk: a product of other shapes rounds differently
    representation_OR = infer_representations(model, store, 1, depths=depths)
    rows_OR = task.rows(model, representation_OR, store.ownership.own_nodes, store)
    blend = build_blend(rows_OR, store, worker, task.relation, config.blend, config.evaluate, "ndcg@20", 0)
    pairs_of = {}
    if config.task.kind == "rating":
        found, _ = task.values(model, representation_OR, store, worker, "valid")
        pairs_of = {"alone": {"rows": "representation", **task.saved(model, found)}}
        pairs_of = {task.name: pairs_of["alone"]}
    save_model(config, model, rows_OR, blend, store, task.relation, worker, pairs_of, depths=depths)
    return representation_OR, rows_OR, histories


@pytest.mark.parametrize("name", MODELS)
def test_a_new_user_is_a_user_of_the_graph_without_an_id_row(world: Path, name: str) -> None:
    config = recipe_of(world, f"run-{name}", **MODELS[name])
    representations, rows, histories = save_with_zero_rows(config)
    new = open_new_users(open_model(config.run_folder / "model"), 5)
    for node, history in histories.items():
        assert len(history.items) > 2
        assert torch.equal(new.representation(history)[0], representations[node]), node
        # biases of ratings are products of all rows at once, which round otherwise
        torch.testing.assert_close(new.ranking_row(history)[0], rows[node], rtol=1e-5, atol=1e-6)


def test_filters_see_a_new_user_as_one_of_the_graph(world: Path) -> None:
    blend = {
        "spectral_rank": 6, "spectral_weight": 0.7, "linear": True, "linear_weight": 0.4, "linear_deflation": 3,
        "edge_weights": "log", "half_life": 4,
    }  # fmt: skip
    config = recipe_of(world, "run-blend", blend=blend)
    _, rows, histories = save_with_zero_rows(config)
    model = open_model(config.run_folder / "model")
    new, known = open_new_users(model, 30), open_ranker(model, 30)
    for node, history in histories.items():
        expected, _ = known.rows_of_users(np.array([node]))
        assert expected.shape[1] > rows.shape[1]
        np.testing.assert_allclose(new.ranking_row(history).numpy(), expected.numpy(), rtol=2e-4, atol=2e-5)
        profile = known.profiles_of_users(np.array([node])).toarray()
        np.testing.assert_allclose(new.profile(history).toarray(), profile, rtol=1e-5)
    together = recommend_new(model, list(histories.values()), 30)
    alone = pl.concat([recommend_new(model, [history], 30) for history in histories.values()])
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
        ({"user": "x", "items": [], "columns": {"age": 3}}, "columns"),
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
