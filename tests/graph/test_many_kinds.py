"""A graph of many kinds: its edges against plain Python, by every way of making parts; its errors; its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import INTERACTS
from small_world import RELATIONS, edges_of_parts, expected_edges, world_recipe, write_world

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.graph.part import Part, PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.sampling.hop_plan import plan_hops


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    api.prepare(world_recipe(folder))
    return folder


def training_pairs(prepared: PreparedGraph) -> set[tuple[str, str]]:
    names = [dict(prepared.ids(kind).select("node_id", "external_id").rows()) for kind in ("user", "item")]
    pairs = np.concatenate([part.pairs(INTERACTS, "train") for part in prepared.parts])
    return {(names[0][user], names[1][item]) for user, item in pairs.tolist()}


@pytest.mark.parametrize("method", ["hash", "range", "metis", "fennel"])
def test_messages_are_those_of_the_tables(folder: Path, tmp_path: Path, method: str) -> None:
    config = world_recipe(folder, data={"prepared": str(tmp_path / "prepared")}, parts={"method": method})
    report = api.prepare(config)
    prepared = open_prepared(config.data.prepared)
    assert prepared.schema.node_types == ("user", "item", "tag", "entity")
    names = [relation.name for relation in prepared.schema.relations]
    assert names == ["interacts", "friends", "follows", "tags", "kg-item-item", "kg-item-entity", "kg-entity-entity"]
    assert edges_of_parts(prepared) == expected_edges(folder / "raw", training_pairs(prepared))
    assert report["dropped"]["edges of friends from a node to itself"] == 1
    assert report["dropped"]["edges of friends to unknown users"] == 1
    assert report["dropped"]["edges of tags to unknown items"] == 2
    assert "t99" not in prepared.ids("tag")["external_id"].to_list(), "only an unknown item has it"
    assert report["partition"]["relations"].keys() == set(names) - {"interacts"}
    parts = prepared.ranges.part_of(np.arange(prepared.ranges.num_nodes))
    assert set(parts) == {0, 1, 2, 3}
    newest = [part.edge_column("time")[part.indptr[0] : part.indptr[1]] for part in prepared.parts]
    assert all((np.diff(times) <= 0).all() for times in newest), "the newest edge first"


def test_the_manifest_has_mean_and_deviation_of_weights(folder: Path) -> None:
    prepared = open_prepared(world_recipe(folder).data.prepared)
    for name, found in prepared.manifest["weights"].items():
        number = next(n for n, one in enumerate(prepared.schema.edge_types) if one.relation.name == name)
        weights = np.concatenate([weights_along(part, prepared, number) for part in prepared.parts]).astype(np.float64)
        for prefix, values in (("", weights), ("log_", np.log1p(np.maximum(weights, 0)))):
            assert found[f"{prefix}mean"] == pytest.approx(values.mean())
            assert found[f"{prefix}deviation"] == pytest.approx(values.std())
    assert "interacts" in prepared.manifest["weights"]


def weights_along(part: Part, prepared: PreparedGraph, number: int) -> np.ndarray:
    """Of the edges of a part along an edge type."""
    one = prepared.schema.edge_types[number]
    nodes = np.arange(part.first_node, part.first_node + part.num_nodes)
    kind = prepared.schema.node_types.index(one.target)
    rows = part.rows.of(nodes[part.rows.type_of(nodes) == kind]) + prepared.schema.slot_of[number]
    edges = [np.arange(part.indptr[row], part.indptr[row + 1]) for row in rows]
    return np.asarray(part.edge_column("weight"))[np.concatenate([np.zeros(0, np.int64), *edges])]


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_chunks_make_no_difference(folder: Path, tmp_path: Path, rows: int) -> None:
    config = world_recipe(folder, data={"prepared": str(tmp_path / "prepared")})
    prepare_dataset(config.name, config.data, config.parts, config.seed, rows=rows)
    files = [path for path in sorted((folder / "prepared").rglob("*")) if path.suffix in (".npy", ".parquet")]
    assert len(files) > 60
    for path in files:
        assert path.read_bytes() == (tmp_path / "prepared" / path.relative_to(folder / "prepared")).read_bytes(), path


@pytest.mark.parametrize(
    ("relations", "words"),
    [
        ({"friends": {"table": "friends.csv", "target": "user"}}, "both ends are in the column user_id"),
        ({"tag": {"table": "tags.csv", "source": "item", "target": "tag"}}, "'tag' can't name a relation"),
        ({"interacts_reversed": {"table": "buy.csv"}}, "interacts_reversed: so the way of interacts .* rename it"),
        ({"tags": {"table": "tags.csv", "source": "a/b"}}, "'a/b' can't name a node type"),
        ({"kg": {**RELATIONS["kg"], "same_as": {"type": "tag"}}}, "same_as.type=tag: expected user or item"),
        ({"tags": {**RELATIONS["tags"], "sorce": "item"}}, "sorce"),
    ],
)
def test_a_schema_that_can_not_be_is_refused(folder: Path, relations: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        world_recipe(folder, data={"relations": relations})


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        ({"columns": {"source": "one", "target": "none"}}, "no column 'none'.*data.relations.friends.columns.target"),
        (
            {"table": "tags.csv", "columns": {"source": "item_id", "target": "tag_id"}},
            "no row of relation friends has known ends",
        ),
        ({"columns": {"source": "one", "target": "other", "category": "kind"}}, "no column 'kind'"),
        ({"table": "none.csv"}, "no such file"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_told(folder: Path, tmp_path: Path, relation: dict[str, Any], words: str) -> None:
    relations = {"friends": RELATIONS["friends"] | relation}
    config = world_recipe(folder, data={"relations": relations, "prepared": str(tmp_path / "prepared")})
    with pytest.raises(DataError, match=words):
        api.prepare(config)
    assert not (tmp_path / "prepared").exists()


def test_a_relation_with_categories_is_not_predicted(folder: Path) -> None:
    with pytest.raises(ConfigError, match="task.relation=kg has categories"):
        world_recipe(folder, task={"kind": "ranking", "relation": "kg"})


TERMS = ["relation", "category", "weight", "age", "rank", "degree"]


MODELS: dict[str, dict[str, Any]] = {
    "degree": {"terms": TERMS, "projection": "relation"},
    "additive": {"terms": TERMS, "num_heads": 2, "keys": ["relation", "category"], "softmax": "relation"},
}


@pytest.mark.parametrize("scoring", MODELS)
def test_ranks_train_it_as_one_does(folder: Path, scoring: str) -> None:
    model = {"scoring": scoring, **MODELS[scoring]}
    train = {"precision": "float64", "num_epochs": 1}
    sampling = {"relations": {"interacts": {"strategy": "recent"}, "kg": {"fanouts": [2, 0]}}}
    alone = api.train(world_recipe(folder, f"{scoring}-1", model=model, train=train, sampling=sampling))
    for workers, access in ((2, "auto"), (4, "exchange")):
        config = world_recipe(
            folder, f"{scoring}-{workers}", model=model, train=train, launch={"num_workers": workers},
            sampling=sampling | {"access": access, "num_streams": 1 if workers == 2 else 4},
        )  # fmt: skip
        other = api.train(config)
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-8)
    found = api.explain(folder / f"{scoring}-1", "u3")
    assert found["score"] == pytest.approx(found["saved_score"], rel=1e-5)
    assert len(api.recommend(folder / f"{scoring}-1", ["u3"], 5)) == 5
    assert (
        0
        <= api.evaluate(world_recipe(folder, f"{scoring}-1", model=model, train=train, sampling=sampling))["test"][
            "ndcg@20"
        ]
        <= 1
    )


def test_a_resumed_run_is_the_same_run(folder: Path) -> None:
    sections: dict[str, Any] = {"model": {"scoring": "degree_dot", "terms": TERMS}, "train": {"num_epochs": 2}}
    whole = api.train(world_recipe(folder, "whole", **sections))
    first = sections | {"train": {"num_epochs": 2, "max_steps": 3}}
    api.train(world_recipe(folder, "again", **first))
    again = api.train(world_recipe(folder, "again", **sections))
    assert again["resumed_from"] == 3
    assert again["losses"] == whole["losses"]
    assert again["valid"] == whole["valid"]


def test_sampling_that_the_graph_can_not_do_is_told(folder: Path) -> None:
    for sampling, words in (
        ({"relations": {"likes": {}}}, "sampling.relations names likes"),
        ({"relations": {"tags": {"strategy": "recent"}}}, "strategy=recent needs times"),
        ({"relations": {"tags_reversed": {"strategy": "recent"}}}, "tags_reversed.strategy=recent needs times"),
    ):
        with pytest.raises(ConfigError, match=words):
            api.train(world_recipe(folder, "refused", sampling=sampling))
    with pytest.raises(ConfigError, match="fanouts has 1 numbers and fanouts has 2"):
        world_recipe(folder, sampling={"relations": {"tags": {"fanouts": [1]}}})


def test_a_way_along_a_relation_has_settings_of_its_own(folder: Path) -> None:
    schema = open_prepared(world_recipe(folder).data.prepared).schema
    relations = {
        "interacts": {"fanouts": [7, 3]}, "interacts_reversed": {"fanouts": [0, 2], "strategy": "recent"},
        "kg_reversed": {"fanouts": [1, 0]},
    }  # fmt: skip
    sampling = world_recipe(folder, sampling={"fanouts": [4, 4], "relations": relations}).sampling
    plans = plan_hops(schema, sampling, ())
    drawn = [dict(zip([one.name for one in schema.edge_types], plan.fan_outs, strict=True)) for plan in plans]
    assert [(hop["interacts"], hop["interacts_reversed"], hop["tags"]) for hop in drawn] == [(7, 0, 4), (3, 2, 4)]
    assert [(hop["kg-item-entity"], hop["kg-item-entity_reversed"]) for hop in drawn] == [(4, 1), (4, 0)]
    names = [one.name for one in schema.edge_types]
    assert plans[0].strategies[names.index("interacts")] == "uniform"
    assert plans[0].strategies[names.index("interacts_reversed")] == "recent"
