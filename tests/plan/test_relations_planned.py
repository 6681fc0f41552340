"""Plans of a graph of four node types and many relations, against what is sampled and what lies on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ranks
from small_world import ENTITIES, RELATIONS, TAGS, world_recipe, write_world
from test_plan import CPU, steps

from dist_gat.api import prepare
from dist_gat.base.errors import ConfigError
from dist_gat.cli.plan_command import counts_of
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.nn.edge_terms import columns_read, prepared_kinds
from dist_gat.nn.recommender import messages_need_degree
from dist_gat.plan.graph_shape import GraphShape, expected_messages
from dist_gat.plan.memory import graph_bytes
from dist_gat.plan.plan import make_plan
from dist_gat.plan.workload import expected_workload
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.build_task import build_task

STRICT = {"time": "strict", "strategy": "recent"}
TERMS = ["relation", "category", "weight", "age", "rank"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    prepare(world_recipe(folder))
    return folder


def planned(folder: Path, sampling: dict[str, Any], **model: Any) -> Config:
    """Few seeds of many, so that samples don't hold the whole small world."""
    fan_outs = {"fanouts": [2, 2], "relations": {"tags": {"fanouts": [1, 0]}, "kg": {"fanouts": [1, 1]}}}
    return world_recipe(
        folder, sampling={**fan_outs, **sampling}, negatives={"num_shared": 4}, train={"batch_size": 12}, model=model
    )


def shape_of(prepared: PreparedGraph) -> GraphShape:
    """The world's degrees are alike along all relations."""
    messages = {relation.name: 0 for relation in prepared.schema.relations}
    for part in prepared.parts:
        for number, one in enumerate(prepared.schema.edge_types):
            nodes = np.array(part.ranges.nodes_of_type(part.number, one.target), dtype=np.int64)
            rows = part.rows.of(nodes) + prepared.schema.slot_of[number]
            count = int((part.indptr[rows + 1] - part.indptr[rows]).sum())
            if one.backward:
                messages[one.relation.name] += count
    for one in prepared.schema.edge_types:
        if one.is_symmetric:
            messages[one.relation.name] //= 2
    users, items = (prepared.ranges.count(kind) for kind in ("user", "item"))
    types = {kind: prepared.ranges.count(kind) for kind in prepared.schema.node_types[2:]}
    interactions = messages.pop("interacts")
    return GraphShape(
        users + items, interactions, users / (users + items), 0, 0, relations=messages, types=types, relation_skew=0
    )


@pytest.mark.parametrize("sampling", [{}, STRICT])
def test_nodes_edges_and_columns_are_those_of_a_sampled_graph(world: Path, sampling: dict[str, Any]) -> None:
    config = planned(world, sampling, terms=TERMS, scoring="degree")
    prepared = open_prepared(config.data.prepared)
    store, task = open_store(prepared, Channel("sampling"), "auto"), build_task(config, prepared)
    needs = columns_read(config.model, messages_need_degree(config.model), prepared_kinds(prepared, config.sampling))
    sampler = SeedBlockSampler(store, config.sampling, task.source(store), 0, True, needs)
    batches = [sampler.sample(store, torch.tensor([epoch, step])) for epoch in range(6) for step in range(10)]
    expected = expected_workload(config, shape_of(prepared), 1)
    nodes = [[block.num_dst for block in reversed(batch.blocks)] + [len(batch.nodes_S)] for batch in batches]
    edges = [[int(block.count_D.sum()) for block in reversed(batch.blocks)] for batch in batches]
    assert expected.nodes == pytest.approx(np.mean(nodes, axis=0), rel=0.1)
    assert expected.edges == pytest.approx(np.mean(edges, axis=0), rel=0.1)
    assert expected.rows == pytest.approx(np.mean([len(batch.nodes_U) for batch in batches]), rel=0.1)
    (block, *_) = reversed(batches[0].blocks)
    assert expected.widths[0] == block.neighbors_DF.shape[1]
    assert expected.numbers == 1 + len(block.edges)
    assert block.degree_SK is not None
    assert expected.degrees == block.degree_SK.shape[1]


def test_graph_bytes_are_those_of_the_parts(world: Path) -> None:
    config = planned(world, STRICT, terms=TERMS)
    prepared = open_prepared(config.data.prepared)
    graph = shape_of(prepared)
    found = sum(
        np.load(path).nbytes
        for part in prepared.parts
        for path in part.folder.rglob("*.npy")
        if not path.name.startswith(("valid", "test"))
    )
    # each part has one row start more than rows; friends that name each other are two pairs and one edge
    (friends,) = (relation for relation in prepared.schema.relations if relation.name == "friends")
    found -= 8 * len(prepared.parts) + 16 * (prepared.num_pairs(friends, "train") - graph.relations["friends"])
    assert graph_bytes(graph, expected_messages(config, graph)) == found


@pytest.mark.parametrize("sampling", [{}, STRICT])
def test_bytes_exchanged_are_those_that_the_channels_count(
    world: Path, ranks: Ranks, tmp_path: Path, sampling: dict[str, Any]
) -> None:
    # how many categories a table has, nobody knows before
    terms = [term for term in TERMS if term != "category"]
    config = planned(world, {**sampling, "access": "exchange"}, terms=terms, scoring="degree", embedding_size=64)
    graph = shape_of(open_prepared(config.data.prepared))
    held = ranks.run(2, steps, config, str(tmp_path), 10)
    plan = make_plan(config, graph, 2, CPU)
    # messages are so small here that their headers count
    assert 2 * plan.traffic.counted == pytest.approx(sum(rank["sent"] for rank in held), rel=0.25)
    assert plan.memory.model == 4 * held[0]["dense"]


@pytest.mark.parametrize(
    ("relations", "types", "words"),
    [
        ({"friends": 60}, {"tag": TAGS, "entity": ENTITIES}, "data.relations.follows: its size is missing"),
        ({}, {}, "--relation follows=EDGES|--relation friends=EDGES"),
        ({"friends": 60, "follows": 50, "tags": 70}, {"tag": 8}, "--relation kg-item-entity=EDGES"),
        ({"friends": 60, "follows": 50, "tags": 70, "kg-item-entity": 9}, {"tag": 8}, "--type entity=NODES"),
        ({**dict.fromkeys(RELATIONS, 9), "likes": 3}, {"tag": 8, "entity": 9}, "relation likes"),
        ({"friends": 0}, {}, "friends=0"),
    ],
)
def test_missing_sizes_are_named(world: Path, relations: dict[str, int], types: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        expected_messages(planned(world, {}), GraphShape(70, 300, relations=relations, types=types))


@pytest.mark.parametrize("text", ["tags", "tags=", "=5", "tags=many", "tags=-1"])
def test_sizes_on_the_command_line_are_names_and_numbers(text: str) -> None:
    assert counts_of("--relation", ["tags=70", "kg-item-entity=9"]) == {"tags": 70, "kg-item-entity": 9}
    with pytest.raises(ConfigError, match="--relation .*: expected NAME=NUMBER"):
        counts_of("--relation", [text])
