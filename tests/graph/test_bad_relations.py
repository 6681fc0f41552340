"""Relations that are odd: each has a defined meaning, which docs/relations.md tells, or a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world import RELATIONS, world_recipe, write_world

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.build_task import build_task

FUTURE = 7_000_000_000  # in seconds: the year 2191
KG = {**RELATIONS["kg"], "format": "csv", "same_as": {"table": "alias.csv"}}


def world(folder: Path, relations: dict[str, Any], tables: dict[str, str], **sections: dict[str, Any]) -> Config:
    write_world(folder / "raw")
    for name, text in tables.items():
        (folder / "raw" / name).write_text(text)
    return world_recipe(folder, data={"relations": relations}, **sections)


def edges_of(prepared: PreparedGraph, relation: str) -> set[tuple[str, str]]:
    """(destination, source) of the messages along a relation, the way to its sources, by name."""
    names = {
        node: name
        for kind in prepared.schema.node_types
        for name, node in prepared.ids(kind).select("external_id", "node_id").rows()
    }
    found = set()
    for part in prepared.parts:
        for number, one in enumerate(prepared.schema.edge_types):
            if one.relation.name == relation and one.backward:
                nodes = np.array(part.ranges.nodes_of_type(part.number, one.target), dtype=np.int64)
                rows = part.rows.of(nodes) + prepared.schema.slot_of[number]
                for node, row in zip(nodes.tolist(), rows.tolist(), strict=True):
                    sources = part.indices[part.indptr[row] : part.indptr[row + 1]]
                    found |= {(names[node], names[int(source)]) for source in sources}
    return found


def test_an_edge_to_an_unknown_node_is_left_out_counted_and_shown(tmp_path: Path) -> None:
    config = world(tmp_path, {"friends": RELATIONS["friends"]}, {"friends.csv": "one,other\nu1,u2\nu3,ghost\nu4,u4\n"})
    report = api.prepare(config)
    assert report["dropped"]["edges of friends to unknown users"] == 1
    assert report["dropped"]["edges of friends from a node to itself"] == 1
    assert any("('u3', 'ghost'); they are left out" in warning for warning in report["warnings"])
    assert edges_of(open_prepared(config.data.prepared), "friends") == {("u1", "u2"), ("u2", "u1")}


def test_a_table_of_edges_from_nodes_to_themselves_is_refused(tmp_path: Path) -> None:
    config = world(tmp_path, {"friends": RELATIONS["friends"]}, {"friends.csv": "one,other\nu1,u1\nu2,u2\n"})
    with pytest.raises(DataError, match="all 2 rows of relation friends lead from a node to itself.*one and other"):
        api.prepare(config)


@pytest.mark.parametrize(
    ("links", "edges"),
    [
        ("i1,i2\ni2,i1\n", {("i2", "i0"), ("i0", "i2")}),  # a cycle: i1 is called i2, and i2 is called i1
        ("i1,x\nnobody,i1\n", {("i1", "i0"), ("i0", "i1")}),
        ("i2,i1\ni4,i1\n", {("i2", "i0"), ("i0", "i2")}),  # two items of one name
    ],
)
def test_names_are_looked_up_once(tmp_path: Path, links: str, edges: set[tuple[str, str]]) -> None:
    alias = "item_id,entity_id\ni0,i0\n" + links.replace("i1,x\n", "i1,i1\n")
    config = world(tmp_path, {"kg": KG}, {"world.kg": "head_id,relation_id,tail_id\ni1,r,i0\n", "alias.csv": alias})
    api.prepare(config)
    prepared = open_prepared(config.data.prepared)
    assert edges_of(prepared, "kg-item-item") == edges
    assert prepared.ids("entity").is_empty(), "all of them are items"


@pytest.mark.parametrize(
    ("relations", "words"),
    [
        (
            {"tags": {"table": "tags.csv", "source": "brand", "target": "shop"}},
            "tags: no relation leads from user or item to brand or shop",
        ),
        ({"kg": {**KG, "same_as": None}}, "kg: no relation leads from user or item to entity"),
        ({"tags": {"table": "tags.csv", "source": None, "target": "tag"}}, "data.relations.tags.source"),
        ({"tags": {"table": "tags.csv", "source": "", "target": "tag"}}, "'' can't name a node type"),
    ],
)
def test_a_relation_whose_type_is_missing_is_refused(tmp_path: Path, relations: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        world_recipe(tmp_path, data={"relations": relations})


def test_types_may_be_reached_over_others_and_in_a_circle(tmp_path: Path) -> None:
    relations = {
        "tags": RELATIONS["tags"],
        "topics": {"table": "topics.csv", "source": "tag", "target": "topic"},
        "back": {"table": "back.csv", "source": "topic", "target": "item"},
    }
    tables = {"topics.csv": "tag_id,topic_id\nt0,p\n", "back.csv": "topic_id,item_id\np,i0\n"}
    config = world(tmp_path, relations, tables)
    api.prepare(config)
    assert set(open_prepared(config.data.prepared).schema.node_types) == {"user", "item", "tag", "topic"}


def seen_world(folder: Path, **sampling: Any) -> Config:
    """All edges of `seen` have the weight 0, the same category, and a time in the future."""
    rows = "".join(f"u{user},i{user % 30},once,0,{FUTURE}\n" for user in range(40))
    seen = {"table": "seen.csv", "columns": {"category": "how"}}
    return world(
        folder, {"seen": seen}, {"seen.csv": "user_id,item_id,how,weight,timestamp\n" + rows},
        sampling={"fanouts": [4], **sampling}, model={"terms": ["category", "weight", "age", "rank"], "scoring": "dot"},
        train={"num_epochs": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sampling", "is_seen"),
    [({}, True), ({"strategy": "weight"}, False), ({"time": "strict"}, False), ({"strategy": "recent"}, True)],
)
def test_one_category_zero_weights_and_times_in_the_future_train(
    tmp_path: Path, sampling: dict[str, Any], is_seen: bool
) -> None:
    config = seen_world(tmp_path, **sampling)
    api.prepare(config)
    prepared = open_prepared(config.data.prepared)
    (number,) = [
        number for number, one in enumerate(prepared.schema.edge_types) if one.relation.name == "seen" and one.backward
    ]
    assert prepared.schema.edge_types[number].relation.categories == ("once",)
    store, task = open_store(prepared, Channel("sampling"), "auto"), build_task(config, prepared)
    sampler = SeedBlockSampler(store, config.sampling, task.source(store), 0, False, ("kind", "weight", "age"))
    block = sampler.sample(store, torch.tensor([0, 0])).blocks[0]
    assert bool((block.edges["kind"][block.mask_DF()] == number).any()) is is_seen
    assert all(np.isfinite(values.numpy()).all() for values in block.edges.values())
    assert np.isfinite(api.train(config)["losses"]).all()


def test_an_empty_category_is_a_bad_row(tmp_path: Path) -> None:
    config = world(
        tmp_path, {"kg": RELATIONS["kg"] | {"format": "csv", "same_as": KG["same_as"]}},
        {"world.kg": "head_id,relation_id,tail_id\ni1,,i0\n", "alias.csv": "item_id,entity_id\ni0,i0\n"},
    )  # fmt: skip
    with pytest.raises(DataError, match="1 bad row"):
        api.prepare(config)
