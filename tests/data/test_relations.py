"""More behaviours of the same users and items: read, written as relations of their own, and trained together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import recipes

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.sections import Config
from dist_gat.graph.part import open_prepared

OTHERS = {
    "collect": {"interactions": "others.csv", "where": {"behaviour": "collect"}},
    "cart": {"interactions": "others.csv", "where": {"behaviour": "cart"}, "messages": False},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 users who buy what is near, 30 items; more is collected, by one more user and of one more item."""
    folder = tmp_path_factory.mktemp("relations")
    rng = np.random.default_rng(0)
    user, item = rng.uniform(-1, 1, 40), rng.uniform(-1, 1, 30)
    near = np.abs(user[:, None] - item[None]) < 0.5
    for name, share in (("buy", 0.4), ("collect", 0.6), ("cart", 0.2)):
        pairs = np.argwhere(near & (rng.random(near.shape) < share))
        pl.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1]}).write_csv(folder / f"{name}.csv")
    stranger = pl.DataFrame({"user_id": [3, 999], "item_id": [777, 3]})
    others = [
        pl.read_csv(folder / f"{name}.csv").extend(stranger).with_columns(behaviour=pl.lit(name))
        for name in ("collect", "cart")
    ]
    pl.concat(others).write_csv(folder / "others.csv")
    pl.DataFrame({"user_id": ["u1"], "item_id": [3]}).write_parquet(folder / "text.parquet")
    api.prepare(recipe(folder))
    return folder


def recipe(folder: Path, run: str = "run", relations: Any = None, **sections: dict[str, Any]) -> Config:
    base: recipes.Sections = {
        "data": {
            "path": str(folder), "interactions": "buy.csv", "relations": OTHERS if relations is None else relations,
        },
        "parts": {"num_parts": 4, "method": "hash"},
        "train": {"num_epochs": 2, "batch_size": 50, "precision": "float64"},
    }  # fmt: skip
    return recipes.recipe(folder, run, base, **sections)


def test_relations_are_prepared_beside_the_interactions(folder: Path) -> None:
    prepared = open_prepared(folder / "prepared")
    assert [relation.name for relation in prepared.schema.relations] == ["interacts", "collect", "cart"]
    names = {kind: dict(prepared.ids(kind).select("node_id", "external_id").rows()) for kind in ("user", "item")}
    found = {}
    for relation in prepared.schema.relations:
        pairs = np.concatenate([part.pairs(relation, "train") for part in prepared.parts])
        found[relation.name] = {(names["user"][u], names["item"][i]) for u, i in pairs.tolist()}
        assert len(found[relation.name]) == prepared.num_pairs(relation, "train")
    for name in ("collect", "cart"):
        assert found[name] == {*pl.read_csv(folder / f"{name}.csv").rows(), (3, 777), (999, 3)}
        assert prepared.num_pairs(prepared.schema.relations[1], "test") == 0
    # messages of both relations, each in rows of its own; not of the cart, which says so
    assert [one.relation.name for one in prepared.schema.edge_types] == ["interacts"] * 2 + ["collect"] * 2
    for slot, relation in enumerate(("interacts", "collect")):
        messages = {
            (names["user"][node], names["item"][source])
            for part in prepared.parts
            for node in part.ranges.nodes_of_type(part.number, "user")
            for row in part.rows.of(np.array([node])) + slot
            for source in part.indices[part.indptr[row] : part.indptr[row + 1]].tolist()
        }
        assert messages == found[relation]
    assert prepared.target_messages(prepared.schema.relations[0]) == len(found["interacts"])


TOGETHER = {"kind": "together", "tasks": {
    "buy": {"kind": "ranking"}, "collect": {"kind": "ranking", "relation": "collect", "weight": 0.5},
    "cart": {"kind": "click", "relation": "cart", "sampled_negatives": 2},
}}  # fmt: skip


def test_ranks_train_several_relations_as_one_does(folder: Path) -> None:
    alone = api.train(recipe(folder, "one", task=TOGETHER))
    assert {name.partition("/")[0] for name in alone["valid"]} == {"buy"}, "the others have no validation pairs"
    for workers, access in ((2, "auto"), (4, "exchange")):
        config = recipe(
            folder, f"w{workers}", task=TOGETHER, launch={"num_workers": workers}, sampling={"access": access}
        )
        other = api.train(config)
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-8)
    found = api.evaluate(recipe(folder, "one", task=TOGETHER))
    assert 0 <= found["test"]["buy/ndcg@20"] <= 1
    bought = set(pl.read_csv(folder / "buy.csv").filter(pl.col("user_id") == 3)["item_id"])
    assert len(api.recommend(folder / "one", [3], 30)) >= 30 - len(bought), "what was collected can be recommended"


def test_one_relation_can_be_predicted_alone(folder: Path) -> None:
    task = {"kind": "click", "relation": "cart", "sampled_negatives": 2}
    trained = api.train(recipe(folder, "cart", task=task))
    assert trained["valid"] == {}
    pairs = pl.DataFrame({"user_id": [3], "item_id": [3]})
    assert 0 < api.predict(folder / "cart", pairs)["prediction"].item() < 1


def test_who_has_no_purchase_is_recommended_by_what_was_collected(folder: Path) -> None:
    api.train(recipe(folder, "stranger"))
    assert len(api.recommend(folder / "stranger", [999], 3)) == 3


@pytest.mark.parametrize(
    ("relations", "words"),
    [
        ({"user": {"interactions": "others.csv"}}, "'user' can't name a relation"),
        ({"a/b": {"interactions": "others.csv"}}, "'a/b' can't name a relation"),
    ],
)
def test_names_are_checked(folder: Path, relations: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(folder, relations=relations)


RANKED = {"kind": "ranking", "relation": "collect"}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"task": {"kind": "together", "tasks": {"collect": RANKED}}},
            "collect has no validation pairs: put a task",
        ),
        ({"task": TOGETHER, "train": {"metric": "collect/ndcg@20"}}, "train.metric=collect/ndcg@20 is not one of buy/"),
        ({"data": {"columns": {"labels": {"row": "x"}}}}, "'row' can't name a label"),
    ],
)
def test_settings_that_do_not_go_with_relations(folder: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(folder, **sections)


def test_what_has_no_held_out_pairs_is_not_measured(folder: Path) -> None:
    task = {"kind": "click", "relation": "cart", "sampled_negatives": 2}
    for verb in (api.fit, api.compare):
        with pytest.raises(DataError, match="cart has no test or validation pairs, so nothing can be measured"):
            verb(recipe(folder, "unmeasured", task=task))
    result = api.compare(recipe(folder, "one", task=TOGETHER), ["recipe"])
    assert result["models"]["recipe"]["metrics"]
    with pytest.raises(ConfigError, match="only-collect: expected some of only-buy, mf"):
        api.compare(recipe(folder, "one", task=TOGETHER), ["only-collect"])


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        ({"interactions": "none.csv"}, "no such file"),
        ({"interactions": "others.csv", "where": {"behavior": "cart"}}, "no column 'behavior'"),
        ({"interactions": "others.csv", "where": {"behaviour": "wish"}}, "no row has"),
    ],
)
def test_tables_that_can_not_be_read_are_told(folder: Path, tmp_path: Path, relation: Any, words: str) -> None:
    config = recipe(folder, relations={"more": relation})
    data = config.data.model_copy(update={"prepared": str(tmp_path / "prepared")})
    with pytest.raises(DataError, match=words):
        api.prepare(config.model_copy(update={"data": data}))
    assert not (tmp_path / "prepared").exists()


def test_ids_of_all_tables_get_one_type(folder: Path, tmp_path: Path) -> None:
    config = recipe(folder, relations={"more": {"interactions": "text.parquet"}})
    config = config.model_copy(update={"data": config.data.model_copy(update={"prepared": str(tmp_path / "prepared")})})
    api.prepare(config)
    users = open_prepared(tmp_path / "prepared").ids("user")["external_id"]
    assert {"u1", "3"} <= set(users), "text, as in the one table that has more than numbers"


def test_a_task_asks_for_a_relation_that_is_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="task.relation=wish is neither interacts nor in data.relations"):
        recipe(folder, task={"kind": "ranking", "relation": "wish"})
    with pytest.raises(
        ConfigError, match="data.relations.wish: saved None, now .* make it anew with `dist-gat prepare"
    ):
        wish = {**OTHERS, "wish": OTHERS["cart"]}
        api.train(recipe(folder, "wish", wish, task={"kind": "ranking", "relation": "wish"}))


def test_a_relation_is_written_as_the_interactions_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "plays.csv").write_bytes("user_id,item_id\nzoë,1\nann,2\n".encode("latin-1"))
    (tmp_path / "likes.csv").write_bytes("user_id,item_id\nzoë,2\n".encode("latin-1"))
    (tmp_path / "plain.csv").write_bytes("user_id,item_id\nzoë,1\n".encode())
    data = {
        "interactions": "plays.csv", "encoding": "latin-1", "split": {"valid_ratio": 0, "test_ratio": 0},
        "prepared": str(tmp_path / "prepared"),
    }  # fmt: skip
    relations = {"likes": {"table": "likes.csv"}, "plain": {"table": "plain.csv", "encoding": "utf-8"}}
    report = api.prepare(recipe(tmp_path, relations=relations, data=data, parts={"num_parts": 1}))
    assert report["num_nodes"]["user"] == 2
    assert report["edges"] == {"interacts": 2, "likes": 1, "plain": 1}


def test_names_of_columns_are_those_of_one_table_alone(tmp_path: Path) -> None:
    """`data.header` is not for relations, whose files have a line with names unless they say otherwise."""
    (tmp_path / "plays.csv").write_text("a,1\nb,2\n")
    (tmp_path / "friends.csv").write_text("friend_id,user_id\na,b\n")
    (tmp_path / "tags.csv").write_text("2,rock\n1,folk\n")
    data = {
        "interactions": "plays.csv", "header": ["user_id", "item_id"],
        "split": {"valid_ratio": 0, "test_ratio": 0}, "prepared": str(tmp_path / "prepared"),
    }  # fmt: skip
    relations = {
        "friends": {"table": "friends.csv", "target": "user", "columns": {"target": "friend_id"}},
        "tags": {"table": "tags.csv", "source": "item", "target": "tag", "header": ["item_id", "tag_id"]},
    }
    report = api.prepare(recipe(tmp_path, relations=relations, data=data, parts={"num_parts": 1}))
    assert report["edges"] == {"interacts": 2, "friends": 1, "tags": 2}
