"""New items stand beside the known ones in every list; columns of new users come in any form, alone or together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import ITEM, USER
from recipes import prepare_and_train
from serve_cases import COLUMNS, recipe_of, write_columns
from small_world import write_world
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.base.errors import DataError
from dist_gat.cli.main import app
from dist_gat.config.sections import Config
from dist_gat.serve.new_items_file import read_new_items
from dist_gat.serve.new_nodes import open_new_nodes
from dist_gat.serve.opened_model import Answer, Question
from dist_gat.serve.ranker import open_ranker
from dist_gat.serve.saved_model import SavedModel, open_model

ITEMS: list[dict[str, Any]] = [
    {"item": "film", "columns": {"year": 2019, "genres": ["g1", "g3"], "sound": [0.5, 1, 2, -1, 0]}},
    {"item": "tagged", "relations": {"tags": ["t1", "t3", "t3"]}},
    {"item": "both", "columns": {"year": 1950}, "relations": {"tags": ["t2"]}, "users": ["u1", "u2"]},
]
USERS: list[dict[str, Any]] = [
    {"user": "ann", "items": ["i3", "i7"], "columns": {"age": 31, "gender": "F"}},
    {"user": "bob", "items": [], "columns": {"age": 50, "gender": "M"}},
    {"user": "eve", "items": ["i1"]},
    {"user": "new", "items": []},
]
MANY = 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    write_columns(folder / "raw")
    blend = {"spectral_rank": 6, "spectral_weight": 0.5, "linear": True, "linear_weight": 0.3}
    model = {"terms": ["relation", "weight"], "inputs": {"id_dropout": 0.3}, "decoder": {"popularity": True}}
    config = recipe_of(folder, "run", ("tags",), data={"nodes": COLUMNS}, blend=blend, model=model)
    prepare_and_train(config)
    return config


@pytest.fixture(scope="module")
def model(trained: Config) -> SavedModel:
    return open_model(trained.run_folder / "model")


def test_a_new_item_has_the_score_of_its_row_and_moves_no_other(trained: Config, model: SavedModel) -> None:
    users = ["u1", "u5", "u1"]
    without = api.recommend(trained.run_folder, users, MANY)
    found = api.recommend(trained.run_folder, users, MANY, new_items=ITEMS)
    names = [item["item"] for item in ITEMS]
    assert found.filter(~pl.col("item_id").is_in(names)).drop("rank").equals(without.drop("rank"))
    added = found.filter(pl.col("item_id").is_in(names))
    # u1 has met the last one
    assert [set(own["item_id"]) for _, own in added.group_by("user_id", maintain_order=True)] == [
        {"film", "tagged"},
        set(names),
    ]
    nodes = open_new_nodes(model)
    ranker = open_ranker(model)
    rows_nR = torch.from_numpy(ranker.rows_of_users(ranker.users.find_texts(["u5"])))
    for item in read_new_items(ITEMS, nodes, lambda _: None):
        row = nodes.ranking_row(nodes.representation(ITEM, item.columns, item.neighbors), len(item.users))
        expected = float((row[0] * rows_nR[0, : row.shape[1]]).sum())
        score = added.filter((pl.col("user_id") == "u5") & (pl.col("item_id") == item.name))["score"]
        np.testing.assert_allclose(score.to_numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_same_for_items_alone_and_together_in_files_and_on_the_terminal(
    trained: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    together = api.recommend(trained.run_folder, ["u5"], MANY, new_items=ITEMS)
    for item in ITEMS:
        alone = api.recommend(trained.run_folder, ["u5"], MANY, new_items=[item])
        own = pl.col("item_id") == item["item"]
        assert alone.filter(own)["score"].to_list() == together.filter(own)["score"].to_list()
    lines = tmp_path / "items.jsonl"
    lines.write_text("\n".join(map(json.dumps, ITEMS)))
    capfd.readouterr()
    asked = ["recommend", str(trained.run_folder), "--user", "u5", "--new-items", str(lines), "--k", str(MANY)]
    assert CliRunner().invoke(app, [*asked, "--json"]).exit_code == 0
    assert json.loads(capfd.readouterr().out)["recommendations"] == together.to_dicts()
    output = tmp_path / "all.parquet"
    api.recommend_to(trained.run_folder, output, k=MANY, new_items=lines)
    written = pl.read_parquet(output).filter(pl.col("user_id") == "u5")
    assert written.equals(together.select(written.columns))
    table = pl.DataFrame({"item_id": ["film"], "year": [2019], "columns.genres": ["g1|g3"]})
    expected = [{"item": "film", "columns": {"year": 2019, "genres": ["g1", "g3"]}}]
    found = api.recommend(trained.run_folder, ["u5"], MANY, new_items=table)
    assert found.equals(api.recommend(trained.run_folder, ["u5"], MANY, new_items=expected))


def test_an_opened_model_has_the_bits_of_the_verb_together_in_batches_and_through_an_index(
    trained: Config, tmp_path: Path
) -> None:
    opened, users = api.open(trained.run_folder), ["u1", "u5"]
    expected = api.recommend(trained.run_folder, users, MANY, new_items=ITEMS)
    assert opened.recommend(users, MANY, new_items=ITEMS).equals(expected)
    assert opened.recommend(users, MANY).equals(api.recommend(trained.run_folder, users, MANY)), "they stayed"
    of_new = api.recommend(trained.run_folder, k=MANY, new_users=USERS, new_items=ITEMS)
    assert opened.recommend(k=MANY, new_users=USERS, new_items=ITEMS).equals(of_new)
    some = {"candidates": ["film", "both", "i3"], "exclude": ["both"]}
    chosen = opened.recommend(["u5"], MANY, new_items=ITEMS, **some)
    own = expected.filter((pl.col("user_id") == "u5") & pl.col("item_id").is_in(["film", "i3"]))
    assert chosen.drop("rank").equals(own.drop("rank"))
    film = expected.filter((pl.col("user_id") == "u5") & (pl.col("item_id") == "film"))
    assert opened.beside(ITEMS).score("u5", ["film"])["score"].to_list() == film["score"].to_list()
    questions = [
        Question(["u5"], MANY, new_items=ITEMS), Question(["u5"], MANY), Question(["u5"], new_items=[{"name": "x"}]),
        Question(["u1"], MANY, new_items=ITEMS[:1]), Question(["u1"], MANY),
    ]  # fmt: skip
    answers = opened.answer(questions)
    assert isinstance(answers[2], DataError)
    for question, answer in zip(questions, answers, strict=True):
        if isinstance(answer, Answer):
            alone = api.recommend(trained.run_folder, question.users, MANY, new_items=question.new_items)
            assert answer.table().equals(alone)
    shutil.copytree(trained.run_folder / "model", tmp_path / "model")
    indexed = api.open(tmp_path / "model", index_probes=1000)
    shutil.rmtree(tmp_path / "model")
    found = indexed.recommend(users, MANY, new_items=ITEMS)
    assert set(found["item_id"]) >= {item["item"] for item in ITEMS}
    assert found.join(expected, on=["user_id", "item_id", "score"], how="anti").is_empty()


def test_new_users_with_columns_from_python_a_table_the_terminal_alone_and_together(
    trained: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    together = api.recommend(trained.run_folder, k=MANY, new_users=USERS, new_items=ITEMS, progress=told.append)
    assert [line for line in told if "no interactions" in line] == [
        "new: no interactions and nothing else that the model reads, so the most popular items"
    ]
    alone = [api.recommend(trained.run_folder, k=MANY, new_users=[user], new_items=ITEMS) for user in USERS]
    assert pl.concat(alone).equals(together)
    lines, items = tmp_path / "users.jsonl", tmp_path / "items.jsonl"
    lines.write_text("\n".join(map(json.dumps, USERS)))
    items.write_text("\n".join(map(json.dumps, ITEMS)))
    capfd.readouterr()
    asked = ["recommend", str(trained.run_folder), "--new-users", str(lines), "--new-items", str(items)]
    assert CliRunner().invoke(app, [*asked, "--k", str(MANY), "--json"]).exit_code == 0
    assert json.loads(capfd.readouterr().out)["recommendations"] == together.to_dicts()
    table = pl.DataFrame(
        [("ann", "i3", 31, "F"), ("ann", "i7", 31, None), ("bob", None, 50, "M"), ("eve", "i1", None, None)],
        schema=["user_id", "item_id", "age", "columns.gender"],
        orient="row",
    )
    for source in (table, tmp_path / "users.csv"):
        if isinstance(source, Path):
            table.write_csv(source)
        found = api.recommend(trained.run_folder, k=MANY, new_users=source, new_items=ITEMS)
        assert found.equals(pl.concat(alone[:3]))
    plain = api.recommend(trained.run_folder, k=MANY, new_users=[{**USERS[0], "columns": None}], new_items=ITEMS)
    assert not plain["score"].equals(alone[0]["score"]), "the columns don't count"
    popular = alone[3].filter(pl.col("item_id") == "both")["score"]
    assert popular.to_list() == [2.0]


def test_what_is_unknown_is_told(trained: Config) -> None:
    told: list[str] = []
    strange = [
        {"item": "x", "users": ["nobody"], "relations": {"tags": ["t99"]}, "columns": {"genres": ["g9"]}},
        {"item": "y"},
    ]
    api.recommend(trained.run_folder, ["u1"], new_items=strange, progress=told.append)
    text = "\n".join(told)
    for words in ("'g9' is no category", "'t99'", "'nobody'", "nothing that the model reads is known of 2 new items"):
        assert words in text, text


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"name": "x"}, "expected"),
        ("x", "expected"),
        ({"item": "i3"}, "is known to the model"),
        ({"item": "x", "tags": []}, "unknown key 'tags'"),
        (
            {"item": "x", "relations": {"friends": []}},
            "relations.friends: items have no messages along it; expected tags",
        ),
        ({"item": "x", "relations": {"interacts": ["u1"]}}, "stands in `users`"),
        ({"item": "x", "relations": ["t1"]}, "relations="),
        ({"item": "x", "relations": {"tags": "t1"}}, "a list of tags"),
        ({"item": "x", "users": [None]}, "no ID"),
        ({"item": "x", "columns": {"height": 3}}, "no column 'height' of item"),
    ],
)
def test_what_cannot_be_read_is_an_error(trained: Config, item: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        api.recommend(trained.run_folder, ["u1"], new_items=[item])


def test_an_item_twice_and_a_user_of_two_ages_are_errors(trained: Config) -> None:
    with pytest.raises(DataError, match="again"):
        api.recommend(trained.run_folder, ["u1"], new_items=[{"item": "x"}, {"item": "x"}])
    table = pl.DataFrame({USER + "_id": ["a", "a"], "item_id": ["i1", "i2"], "age": [3, 4]})
    with pytest.raises(DataError, match="expected one value a node"):
        api.recommend(trained.run_folder, new_users=table)
    with pytest.raises(DataError, match=r"'columns.height' is no column .* it reads age, gender"):
        api.recommend(trained.run_folder, new_users=table.select("user_id", "item_id", **{"columns.height": 3}))
