"""Explanations of a small trained run: the saved score, exact weights, fidelity, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS
from recipes import prepare_and_train
from recipes import recipe as any_recipe
from recipes import small_recipe as recipe

from dist_gat.api import explain, prepare, recommend, train
from dist_gat.base.errors import ConfigError, DataError, StorageError
from dist_gat.config.files import parse_config
from dist_gat.explain import explanation as explanation_module
from dist_gat.explain.explanation import (
    ITEM_AT,
    USER_AT,
    drops_of_edges,
    edge_weights,
    fidelity,
    heaviest_first,
    score_of,
)
from dist_gat.explain.trained_run import open_trained_run


@pytest.fixture(scope="module")
def explanation(small_run: Path) -> dict[str, Any]:
    return explain(small_run / "run", "u3")


def test_the_best_new_item_is_explained_with_the_score_that_recommend_gives(
    small_run: Path, explanation: dict[str, Any]
) -> None:
    best = recommend(small_run / "run", ["u3"], k=1).row(0, named=True)
    assert explanation["user"] == {"user_id": "u3"}
    assert explanation["item"] == {"item_id": best["item_id"], "title": best["title"]}
    assert explanation["score"] == pytest.approx(best["score"], abs=1e-5)
    assert explanation["saved_score"] == pytest.approx(best["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("scoring", "precision", "size", "decoder"),
    [
        ("additive_v2", "float32", 16, {"kind": "dot"}),
        ("degree", "float32", 16, {"kind": "cosine", "temperature": 0.2, "popularity": True}),
        ("dot", "float64", 8, {"kind": "dot"}),
    ],
)
def test_any_item_has_its_saved_score(
    small_run: Path, tmp_path: Path, scoring: str, precision: str, size: int, decoder: dict[str, Any]
) -> None:
    """A run that another configuration trained, moved elsewhere since, on the same data set."""
    config = recipe(small_run, embedding_size=size, scoring=scoring, combination="concat", decoder=decoder)
    settings = config.train.model_copy(update={"precision": precision})
    train(config.model_copy(update={"run": str(tmp_path / "first"), "train": settings}))
    moved = shutil.move(tmp_path / "first", tmp_path / "second")
    for user, item in (("u3", "i7"), ("u149", "i0")):
        found = explain(moved, user, item)
        assert found["item"]["item_id"] == item
        assert found["score"] == pytest.approx(found["saved_score"], rel=1e-5, abs=1e-6)
        run = open_trained_run(moved)
        nodes = {kind: dict(run.saved.ids(kind).select("external_id", "node_id").rows()) for kind in ("user", "item")}
        rows_TR = run.representations(np.array([nodes["user"][user], nodes["item"][item]]))
        size = run.model.encoder.representation_size
        own = float(rows_TR[0, :size] @ rows_TR[1, :size])
        assert sum(found["own_scores"].values()) == pytest.approx(found["saved_score"] - own, abs=1e-6)
        assert [name for name, value in found["own_scores"].items() if value > 0] == (
            ["popularity"] if decoder.get("popularity") else []
        )


def test_interactions_are_those_of_training_by_weight(small_run: Path, explanation: dict[str, Any]) -> None:
    run = open_trained_run(small_run / "run")
    users, items = (dict(run.saved.ids(kind).select("node_id", "external_id").rows()) for kind in ("user", "item"))
    pairs = np.concatenate([part.pairs(INTERACTS, "train") for part in run.store.prepared.parts]).tolist()
    met = {items[item] for user, item in pairs if users[user] == "u3"}
    assert explanation["num_interactions"] == len(met)
    everything = explain(small_run / "run", "u3", top=1000)
    assert {entry["item_id"] for entry in everything["interactions"]} == met
    assert everything["interactions"][:10] == explanation["interactions"]
    drops = [entry["contribution"] for entry in everything["interactions"]]
    assert drops == sorted(drops, reverse=True)
    assert sum(entry["weight"] for entry in everything["interactions"]) == pytest.approx(1.0)
    assert {entry["relation"] for entry in everything["interactions"]} == {"interacts"}
    assert everything["others"] == []
    for entry in everything["interactions"]:
        assert np.shape(entry["layers"]) == (2, 2), "layers and heads"
        assert entry["weight"] == pytest.approx(np.mean(entry["layers"]))
        fans = {users[user] for user, item in pairs if items[item] == entry["item_id"]}
        assert {user["user_id"] for user in entry["behind"]} <= fans
        assert len(entry["behind"]) == min(3, len(fans))
        assert np.shape(entry["behind"][0]["layers"]) == (1, 2), "only the first layer computes an item one hop off"
    fans = {users[user] for user, item in pairs if items[item] == explanation["item"]["item_id"]}
    assert {user["user_id"] for user in everything["item_users"]} == fans
    assert sum(user["weight"] for user in everything["item_users"]) == pytest.approx(1.0)


def test_fidelity_deletes_from_the_graph_and_is_seeded(small_run: Path, explanation: dict[str, Any]) -> None:
    found = explanation["fidelity"]
    assert found["deleted"] == min(5, explanation["num_interactions"] // 2)
    assert len(found["random_drops"]) == 20
    assert len(set(found["random_drops"])) > 10, "the draws differ"
    assert found["random_drop_mean"] == pytest.approx(np.mean(found["random_drops"]))
    assert found["random_drop_std"] == pytest.approx(np.std(found["random_drops"]))
    assert explain(small_run / "run", "u3")["fidelity"] == found
    other = explain(small_run / "run", "u3", overrides=["seed=1"])["fidelity"]
    assert other["random_drops"] != found["random_drops"]
    assert other["top_drop"] == found["top_drop"]


def test_deleting_what_decides_the_score_is_told_from_chance(small_run: Path, tmp_path: Path) -> None:
    """A model made by hand: the user is the sum of its neighbours, and only one of them is like the item."""
    config = recipe(small_run, residual=False, combination="last", num_heads=1, decoder={"kind": "dot"})
    sampling = config.sampling.model_copy(update={"fanouts": [5]})
    train(config.model_copy(update={"run": str(tmp_path), "sampling": sampling}))
    run = open_trained_run(tmp_path)
    user, item = (run.saved.ids(kind)["node_id"][5] for kind in ("user", "item"))
    near = run.neighborhood(np.array([user, item]))
    sources = near.indices[near.edges_of(0)]
    assert len(sources) >= 6
    input_SE = torch.zeros(len(near.nodes), 16)
    input_SE[0], input_SE[sources[4]] = 1.0, 3.0
    input_SE[near.indices[near.edges_of(1)]] = 1.0
    encoded = run.encode(near, input_SE)
    weight_LdH = edge_weights(encoded.alphas, near, 0)
    assert heaviest_first(weight_LdH)[0] == 4
    score = score_of(run, near, encoded.rows_NR)
    by_attention = heaviest_first(weight_LdH)
    drop_d = drops_of_edges(run, near, input_SE, weight_LdH, encoded.rows_NR, score).drop_d
    assert np.argmax(drop_d) == 4
    assert drop_d[4] == pytest.approx(score, rel=0.01)
    found = fidelity(run, near, input_SE, np.argsort(-drop_d), by_attention, score)
    assert found["top_drop"] == pytest.approx(score, rel=0.01), "nothing is left"
    assert found["attention_drop"] == pytest.approx(found["top_drop"])
    # a random draw finds the one edge as often as its share of the edges says
    expected = score * found["deleted"] / len(sources)
    assert abs(found["random_drop_mean"] - expected) < 3 * score * 0.5 / np.sqrt(20)
    assert found["random_drop_mean"] < 0.9 * score
    assert found["random_drop_std"] > 0.1 * score
    assert explain(tmp_path, "u3")["interactions"][0]["behind"] == [], "one layer sees one hop"


@pytest.mark.parametrize("scoring", ["degree", "additive", "dot", "degree_dot"])
def test_with_one_layer_contributions_are_what_deletion_gives(
    small_run: Path, tmp_path: Path, scoring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(small_run, scoring=scoring, decoder={"kind": "cosine"}, num_heads=1, terms=["rank", "age"])
    sampling = config.sampling.model_copy(update={"fanouts": [5]})
    train(config.model_copy(update={"run": str(tmp_path), "sampling": sampling}))
    run = open_trained_run(tmp_path)
    user, item = (run.saved.ids(kind)["node_id"][7] for kind in ("user", "item"))
    near = run.neighborhood(np.array([user, item]))
    input_SE = run.input_rows(near.nodes)
    encoded = run.encode(near, input_SE)
    score, weight_LdH = score_of(run, near, encoded.rows_NR), edge_weights(encoded.alphas, near, USER_AT)
    sources = near.indices[near.edges_of(USER_AT)]
    expected = [
        score - score_of(run, near, run.encode(near.without(USER_AT, sources[[edge]]), input_SE).rows_NR)
        for edge in range(len(sources))
    ]
    away_from_item = sources != ITEM_AT  # whose own row would change too
    found = drops_of_edges(run, near, input_SE, weight_LdH, encoded.rows_NR, score).drop_d
    np.testing.assert_allclose(found[away_from_item], np.array(expected)[away_from_item], atol=1e-5)
    monkeypatch.setattr(explanation_module, "MOST_EDGES", 3)
    few = drops_of_edges(run, near, input_SE, weight_LdH, encoded.rows_NR, score).drop_d
    assert np.flatnonzero(~np.isnan(few)).tolist() == sorted(heaviest_first(weight_LdH)[:3].tolist())


def test_a_recipe_and_a_folder_explain_the_same(small_run: Path, explanation: dict[str, Any]) -> None:
    assert explain(recipe(small_run), "u3") == explanation
    assert explain(str(small_run / "run" / "config.yaml"), "u3") == explanation
    json.dumps(explanation)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("u9999",), DataError, "unknown user ID .*u9999"),
        (("u3", "i9999"), DataError, "unknown item ID .*i9999"),
        (("u3", None, 0), ConfigError, "top=0"),
    ],
)
def test_what_is_not_there_is_named(small_run: Path, arguments: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        explain(small_run / "run", *arguments)


def test_one_interaction_and_items_that_nobody_met_can_be_explained(small_run: Path, tmp_path: Path) -> None:
    rows = {"train": [(1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (3, 3)], "valid": [(1, 4)], "test": [(2, 4)]}
    for name, pairs in rows.items():
        (tmp_path / f"{name}.csv").write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in pairs))
    data = {"path": str(tmp_path), **{name: f"{name}.csv" for name in rows}, "split": {"method": "files"}}
    tree = recipe(small_run).model_dump(mode="json") | {"data": {**data, "prepared": str(tmp_path / "prepared")}}
    tree |= {"run": str(tmp_path / "run"), "parts": {"num_parts": 1}, "train": {"num_epochs": 1, "batch_size": 4}}
    config = parse_config(tree)
    prepare(config)
    train(config)
    single = explain(config, 3)
    assert (single["num_interactions"], single["fidelity"]["deleted"]) == (1, 1)
    assert single["fidelity"]["top_drop"] == single["fidelity"]["random_drop_mean"]
    new = explain(config, 1, 4)
    assert (new["user"], new["item"]) == ({"user_id": 1}, {"item_id": 4})
    assert (new["num_item_users"], new["item_users"]) == (0, [])
    assert new["score"] == pytest.approx(new["saved_score"], abs=1e-6)
    with pytest.raises(DataError, match="user '1' has met every item"):
        explain(config, 1)


def test_another_data_set_or_no_run_is_refused(small_run: Path, tmp_path: Path) -> None:
    other = recipe(small_run).model_copy(update={"parts": recipe(small_run).parts.model_copy(update={"num_parts": 2})})
    other = other.model_copy(update={"data": other.data.model_copy(update={"prepared": str(tmp_path / "prepared")})})
    prepare(other)
    with pytest.raises(StorageError, match="another prepared data set"):
        explain(small_run / "run", "u3", overrides=[f"data.prepared={tmp_path / 'prepared'}", "parts.num_parts=2"])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "model").symlink_to(small_run / "run" / "model")
    shutil.copy(small_run / "run" / "config.yaml", tmp_path / "linked")
    with pytest.raises(StorageError, match="this link leads"):
        explain(tmp_path / "linked", "u3")
    (tmp_path / "linked" / "model").unlink()
    with pytest.raises(StorageError, match="config.yaml in a run folder"):
        explain(tmp_path, "u3")
    shutil.copy(small_run / "run" / "config.yaml", tmp_path)
    with pytest.raises(StorageError, match="dist-gat train"):
        explain(tmp_path, "u3")


def test_a_user_without_messages_is_told(tmp_path: Path) -> None:
    """All that u0 met is below `data.min_message_weight`."""
    rows = [f"u{user},i{item},{1 + bool(user)}" for user in range(12) for item in range(10) if (user + item) % 3]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "interactions.csv").write_text("\n".join(["user_id,item_id,rating", *rows]))
    prepare_and_train(any_recipe(tmp_path, data={"min_message_weight": 2.0}, train={"num_epochs": 1}))
    with pytest.raises(DataError, match="user 'u0' attends to nothing.*min_message_weight"):
        explain(tmp_path / "run", "u0")
    assert explain(tmp_path / "run", "u1")["interactions"]
