"""Weights of a history against loops, the filters with them against dense closed forms, and a run from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import ITEM, USER, Ranks
from hypothesis import given
from hypothesis import strategies as st
from recipes import recipe
from test_blend import (
    PLAIN,
    choose,
    dense_deflated,
    dense_linear,
    dense_spectral,
    interactions,
    nodes_of,
    open_all,
    scores_of,
)

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.sections import BlendConfig, Config
from dist_gat.filters.blend import build_blend
from dist_gat.filters.history_weights import HistoryWeights, check_history, history_weights, newer_in_history
from dist_gat.filters.user_items import training_items
from dist_gat.graph.part import PreparedGraph, open_prepared

RELATIONS = {
    "collect": {"table": "collect.csv"},
    "cart": {"table": "cart.csv", "messages": False},
    "tags": {"table": "collect.csv", "source": "item", "target": "tag", "columns": {"target": "weight"}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "relations": {"relations": {"collect": 0.5, "cart": 2.0}},
    "ratings": {"edge_weights": "weight"},
    "recency": {"half_life": 3.0},
    "all": {"relations": {"collect": 0.7}, "edge_weights": "weight", "half_life": 2.0},
}


def small_recipe(folder: Path, run: str = "run", **sections: dict[str, Any]) -> Config:
    base: dict[str, Any] = {
        "data": {"relations": RELATIONS, "split": {"method": "random", "valid_ratio": 0.2, "test_ratio": 0.1}},
        "parts": {"num_parts": 4, "method": "hash"},
        "train": {"metric": "ndcg@5"},
        "evaluate": {"ks": [5, 10]},
    }
    return recipe(folder, run, base, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 users, 25 items; what is bought and collected has weights and times, many of them equal; carts have none."""
    folder = tmp_path_factory.mktemp("weighted")
    (folder / "raw").mkdir()
    rng = np.random.default_rng(0)
    user, item = rng.uniform(-1, 1, 40), rng.uniform(-1, 1, 25)
    near = np.abs(user[:, None] - item[None]) < 0.6
    for name, share in (("interactions", 0.5), ("collect", 0.5), ("cart", 0.2)):
        pairs = np.argwhere(near & (rng.random(near.shape) < share))
        table = pl.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1]})
        if name != "cart":
            weights, times = rng.integers(0, 6, len(pairs)), 10**9 + rng.integers(0, 8, len(pairs)) * 10**5
            table = table.with_columns(weight=pl.Series(weights), timestamp=pl.Series(times))
        table.write_csv(folder / "raw" / f"{name}.csv")
    api.prepare(small_recipe(folder))
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> PreparedGraph:
    return open_prepared(folder / "prepared")


def weights_of(prepared: PreparedGraph, settings: dict[str, Any]) -> HistoryWeights:
    config = BlendConfig.model_validate(settings)
    return history_weights(prepared.schema, prepared.schema.relations[0], config, config.half_lives[0])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=20))
def test_newer_ones_are_counted(history: list[tuple[int, int]]) -> None:
    users, times = np.array(history, dtype=np.int64).reshape(-1, 2).T
    expected = [sum(u == user and t > time for u, t in history) for user, time in history]
    assert newer_in_history(users, times).tolist() == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_filters_with_weights_are_their_closed_forms(prepared: PreparedGraph, name: str) -> None:
    weights = weights_of(prepared, SETTINGS[name])
    users, items = nodes_of(prepared, USER), nodes_of(prepared, ITEM)
    matrix, plain = interactions(prepared, weights), interactions(prepared)
    alike = interactions(prepared, replace(weights, half_life=None))
    store = open_all(prepared.folder)[1]
    found = [training_items(store, weights)(part).toarray() for part in range(4)]
    np.testing.assert_allclose(np.concatenate(found), matrix[users], rtol=1e-6)
    rank = 12  # with the oversampling as many columns as there are items, so that all directions are exact
    rows, linear = scores_of(prepared.folder, rank, "auto", weights)
    assert not np.allclose(dense_linear(matrix), dense_linear(plain), rtol=0.1)
    scores = np.stack([linear[user] for user in users])[:, items]
    np.testing.assert_allclose(scores, dense_linear(matrix)[np.ix_(users, items)], rtol=1e-5, atol=1e-7)
    for part, expected in ((rows[:, :rank], dense_spectral(matrix, rank, alike)), (rows[:, rank:], None)):
        found = part[users] @ part[items].T
        if expected is None:
            found, expected = found + scores, dense_deflated(matrix, rank)
        np.testing.assert_allclose(found, expected[np.ix_(users, items)], atol=1e-4 * np.abs(expected).max())


def test_without_weights_the_filters_have_the_edges_of_the_task_alone(prepared: PreparedGraph) -> None:
    """The graph has messages of what was collected, and of tags."""
    worker, store, table = open_all(prepared.folder)
    settings = {"spectral_rank": 12, "linear": True, "linear_deflation": 5, "spectral_weight": 1, "linear_weight": 1}
    config, evaluate = BlendConfig.model_validate(settings), small_recipe(Path()).evaluate
    rows_OR, relation = table.weight.detach(), prepared.schema.relations[0]
    blend = build_blend(rows_OR, store, worker, relation, config, evaluate, "ndcg@5", seed=3)
    users, items = nodes_of(prepared, USER), nodes_of(prepared, ITEM)
    plain = interactions(prepared)
    spectral = dense_spectral(plain, 12)[np.ix_(users, items)]
    np.testing.assert_allclose(
        (blend.spectral_Ok[users] @ blend.spectral_Ok[items].T).numpy(), spectral, atol=1e-4 * spectral.max()
    )
    taken_out = (dense_deflated(plain, 5) - dense_linear(plain))[np.ix_(users, items)]
    np.testing.assert_allclose(
        (blend.deflation_Oj[users] @ blend.deflation_Oj[items].T).numpy(), taken_out, atol=1e-3 * abs(taken_out).max()
    )


def test_a_relation_without_messages_has_its_own_edges(folder: Path) -> None:
    """Also where the messages are along one other relation alone."""
    config = small_recipe(
        folder, data={"relations": {"cart": RELATIONS["cart"]}, "prepared": str(folder / "carts")},
        task={"kind": "ranking", "relation": "cart"},
    )  # fmt: skip
    api.prepare(config)
    worker, store, table = open_all(folder / "carts")
    relation = store.prepared.schema.relations[1]
    settings = BlendConfig(spectral_rank=12, spectral_weight=1, linear_weight=0)
    blend = build_blend(table.weight.detach(), store, worker, relation, settings, config.evaluate, "ndcg@5", seed=3)
    users, items = nodes_of(store.prepared, USER), nodes_of(store.prepared, ITEM)
    expected = dense_spectral(interactions(store.prepared, HistoryWeights({relation: 1.0})), 12)[np.ix_(users, items)]
    found = (blend.spectral_Ok[users] @ blend.spectral_Ok[items].T).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", ["relations", "all"])
def test_weighted_filters_have_the_bits_of_one_rank(prepared: PreparedGraph, ranks: Ranks, name: str) -> None:
    weights = weights_of(prepared, SETTINGS[name])
    rows, linear = scores_of(prepared.folder, 4, "auto", weights)
    for world_size, access in ((2, "auto"), (4, "exchange")):
        parted = ranks.run(world_size, scores_of, prepared.folder, 4, access, weights)
        assert np.array_equal(np.concatenate([rank[0] for rank in parted]), rows)
        found = {user: row for rank in parted for user, row in rank[1].items()}
        assert all(np.array_equal(found[user], linear[user]) for user in linear)


def test_validation_chooses_the_half_life(prepared: PreparedGraph) -> None:
    worker, store, table = open_all(prepared.folder)
    rows_OR, relation = table.weight.detach(), prepared.schema.relations[0]
    found: dict[float | None, tuple[Any, float]] = {}
    for half_life in (None, 8.0, 2.0, 0.5):
        found[half_life] = choose(prepared.folder, {"half_life": [half_life]}, "ndcg@5")
    best = max(found, key=lambda one: found[one][1])
    assert len({value for _, value in found.values()}) > 1
    settings = BlendConfig(spectral_rank=6, linear=True, half_life=list(found))
    evaluate = small_recipe(Path()).evaluate.model_copy(update={"edge_chunk": 60})
    blend = build_blend(rows_OR, store, worker, relation, settings, evaluate, "ndcg@5", seed=3)
    assert (blend.half_life, blend.weights, blend.value) == (best, found[best][0], pytest.approx(found[best][1]))
    given_weights = settings.model_copy(update={"spectral_weight": 1.0, "linear_weight": 1.0})
    assert build_blend(rows_OR, store, worker, relation, given_weights, evaluate, "ndcg@5", 3).half_life in found


def test_the_saved_model_ranks_with_the_weights(folder: Path) -> None:
    """Recommendations are the ranking that was evaluated; what was collected can be recommended."""
    blend = {"linear": True, "linear_weight": 50.0, "spectral_rank": 4, "spectral_weight": 3.0, **SETTINGS["all"]}
    config = small_recipe(folder, "blended", blend=blend)
    trained = api.train(config)
    assert (trained["blend"], trained["half_life"]) == ({"spectral": 3.0, "linear": 50.0}, 2.0)
    metrics = api.evaluate(config)
    assert metrics["test"] != api.evaluate(_trained(folder, "alone"))["test"]
    prepared = open_prepared(config.data.prepared)
    names = {kind: dict(prepared.ids(kind).select("node_id", "external_id").rows()) for kind in (USER, ITEM)}
    pairs = {
        split: {(names[USER][u], names[ITEM][i]) for p in prepared.parts for u, i in p.pairs(PAIRS, split).tolist()}
        for split in ("train", "valid", "test")
    }
    users = sorted({user for user, _ in pairs["test"]})
    table = api.recommend(config.run_folder, users, k=25)
    recommended = set(table.select("user_id", "item_id").rows())
    assert not recommended & (pairs["train"] | pairs["valid"])
    collected = set(pl.read_csv(folder / "raw" / "collect.csv").select("user_id", "item_id").rows())
    assert recommended & collected
    recalls = []
    for user in users:
        top = set(table.filter((pl.col("user_id") == user) & (pl.col("rank") <= 10))["item_id"])
        relevant = {item for other, item in pairs["test"] if other == user}
        recalls.append(len(top & relevant) / len(relevant))
    assert metrics["test"]["recall@10"] == pytest.approx(np.mean(recalls), abs=1e-9)


PAIRS = next(iter(PLAIN.relations))


def _trained(folder: Path, run: str) -> Config:
    config = small_recipe(folder, run)
    api.train(config)
    return config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"relations": {"collects": 1.0}},
            r"blend.relations.collects: .* ends of interacts, beside it: collect, cart$",
        ),
        ({"relations": {"tags": 1.0}}, "blend.relations.tags: expected relations with the ends of interacts"),
        ({"relations": {"interacts": 1.0}}, "blend.relations.interacts"),
        ({"relations": {"collect": 0.0}}, "greater than 0"),
        ({"half_life": []}, "at least 1 item"),
        ({"half_life": [0.0]}, "greater than 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small_recipe(Path(), blend=settings)


def test_data_without_times_or_weights_are_told_before_training(folder: Path, synthetic: PreparedGraph) -> None:
    said: list[str] = []
    with pytest.raises(DataError, match=r"half_life goes by time.* cart have none: name data.relations.cart.columns"):
        blend = {"linear": True, "half_life": [None, 3], "relations": {"cart": 1}}
        api.train(small_recipe(folder, "untimed", blend=blend), progress=said.append)
    assert not any("starting" in line for line in said)
    prepared, relation = open_prepared(folder / "prepared"), synthetic.schema.relations[0]
    check_history(prepared, relation, BlendConfig(half_life=3.0, linear=True))
    check_history(prepared, relation, BlendConfig(edge_weights="log", linear=True, relations={"cart": 1.0}))
    prepared.manifest["labels"]["collect"]["weight"]["min"] = -1.0
    rated = BlendConfig(edge_weights="log", linear=True, relations={"collect": 1.0})
    with pytest.raises(DataError, match="weights of 0 or more, and collect has -1"):
        check_history(prepared, relation, rated)
    if not synthetic.has_label(relation, "weight"):
        with pytest.raises(DataError, match=r"no pairs of interacts have any: name data.columns.weight"):
            check_history(synthetic, relation, BlendConfig(edge_weights="weight", linear=True))
