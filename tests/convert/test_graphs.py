"""A prepared folder in other graph libraries, and their graphs in `prepare`: edges, IDs and columns stay."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import INTERACTS
from small_world import RELATIONS, expected_edges, world_recipe, write_world

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.files import parse_config
from dist_gat.convert.typed_graph import node_ids, typed_edges
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.sampling.dgl import WHY_NOT_DGL, dgl

networkx = pytest.importorskip("networkx")
HeteroData = pytest.importorskip("torch_geometric.data").HeteroData
Edge = tuple[str, str, str, str, float, int]  # relation, source, target, category, weight, seconds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """Four node types and five relations in four parts: see `small_world`."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    config = world_recipe(folder)
    api.prepare(config)
    return open_prepared(config.data.prepared)


@pytest.fixture(scope="module")
def edges(world: PreparedGraph) -> list[Edge]:
    """All training edges of the input, in the way that its table has them; friends may stand there both ways."""
    ids = {kind: dict(world.ids(kind).select("node_id", "external_id").rows()) for kind in ("user", "item")}
    pairs = np.concatenate([part.pairs(INTERACTS, "train") for part in world.parts]).tolist()
    messages = expected_edges(
        world.folder.parent / "raw", {(ids["user"][user], ids["item"][item]) for user, item in pairs}
    )
    found = [edge for edge in messages if not edge[0].endswith(("<", "friends")) and not edge[3].endswith(" reversed")]
    friends = set(pl.read_csv(world.folder.parent / "raw" / "friends.csv").rows())
    friends = {pair for pair in friends if pair[0] != pair[1] and "nobody" not in pair}
    return sorted([*found, *(edge_of("friends", *pair, {}) for pair in friends)])


def edge_of(relation: str, source: str, target: str, known: dict[str, Any]) -> Edge:
    if relation == "friends":
        source, target = sorted((source, target))
    category, weight, time = known.get("category", ""), known.get("weight", 0.0), known.get("time", 0)
    return (relation, source, target, category, float(weight), int(time) // 10**6)


def test_networkx_has_all_nodes_and_edges(world: PreparedGraph, edges: list[Edge]) -> None:
    graph = api.to_networkx(world)
    found = [edge_of(known["relation"], one[1], other[1], known) for one, other, known in graph.edges(data=True)]
    assert sorted(found) == edges
    assert set(graph) == {(kind, name) for kind in world.schema.node_types for name in node_ids(world, kind)}
    assert all((known["node_type"], known["external_id"]) == node for node, known in graph.nodes(data=True))
    assert {known["bipartite"] for (kind, _), known in graph.nodes(data=True) if kind == "user"} == {0}


def edges_by_relation(names: dict[str, list[str]], relation: Any, ends: Any, known: dict[str, Any]) -> list[Edge]:
    codes = known.pop("category", None)
    rows = {name: values.tolist() for name, values in known.items()}
    if codes is not None:
        rows["category"] = [relation.categories[code] for code in codes.tolist()]
    return [
        edge_of(
            relation.name,
            names[relation.source][one],
            names[relation.target][other],
            {k: v[at] for k, v in rows.items()},
        )
        for at, (one, other) in enumerate(zip(*ends, strict=True))
    ]


def test_pyg_has_all_nodes_and_edges(world: PreparedGraph, edges: list[Edge]) -> None:
    data = api.to_pyg(world)
    data.validate()
    names = {kind: data[kind].external_id for kind in data.node_types}
    assert {kind: data[kind].num_nodes for kind in names} == {k: world.ranges.count(k) for k in world.schema.node_types}
    found = []
    for one in world.schema.relations:
        store = data[one.source, one.name, one.target]
        known = {name: store[name] for name in ("category", "weight", "time") if name in store}
        found += edges_by_relation(names, one, store.edge_index.tolist(), known)
    assert sorted(found) == edges


@pytest.mark.skipif(dgl is None, reason=WHY_NOT_DGL)
def test_dgl_has_all_nodes_and_edges(world: PreparedGraph, edges: list[Edge]) -> None:
    graph = api.to_dgl(world)
    found = []
    for one in world.schema.relations:
        ends = [side.tolist() for side in graph.edges(etype=(one.source, one.name, one.target))]
        found += edges_by_relation(graph.external_id, one, ends, dict(graph.edges[one.name].data))
    assert sorted(found) == edges


def test_columns_of_nodes_come_along(synthetic: PreparedGraph) -> None:
    data, graph = api.to_pyg(synthetic), api.to_networkx(synthetic)
    for kind in ("user", "item"):
        matrix = np.concatenate([part.features[kind] for part in synthetic.parts])
        for column in synthetic.layouts[kind]:
            values = data[kind][column.name].numpy().reshape(len(matrix), -1)
            assert values.tobytes() == np.ascontiguousarray(matrix[:, column.slice]).tobytes()
        (number,) = [c for c in synthetic.layouts[kind] if c.kind == "numeric"][:1]
        for name, value in zip(data[kind].external_id, matrix[:, number.offset].tolist(), strict=True):
            assert graph.nodes[kind, name].get(number.name) == (None if np.isnan(value) else value)
    (category,) = [column for column in synthetic.layouts["item"] if column.kind == "category"]
    names = synthetic.categories("item", category.name).to_list()
    codes = data["item"][category.name].tolist()
    assert max(codes) > 0
    for name, code in zip(data["item"].external_id, codes, strict=True):
        assert graph.nodes["item", name].get(category.name) == (names[code] if code >= 0 else None)
    if dgl is not None:
        theirs = api.to_dgl(synthetic)
        assert torch.equal(theirs.nodes["item"].data[category.name], data["item"][category.name])


@pytest.mark.parametrize("convert", [api.to_networkx, api.to_pyg])
def test_there_and_back_keeps_edges_and_ids(world: PreparedGraph, convert: Any, tmp_path: Path) -> None:
    """The tables of a graph, prepared again, are the same graph."""
    tables = api.tables_from(convert(world))
    assert tables["interacts"].columns == ["user_id", "item_id", "weight", "time"]
    relations = {
        name: {
            "table": name, "source": one.source, "target": one.target, "directed": one.directed,
            "columns": ({"source": "source", "target": "target"} if one.source == one.target else {})
            | ({"category": "category"} if "category" in one.columns else {}),
        }
        for one in world.schema.relations[1:]
        if (name := one.name) in RELATIONS
    }  # fmt: skip
    data = {
        "interactions": "interacts", "relations": relations,
        "split": {"method": "random", "valid_ratio": 0, "test_ratio": 0},
        "columns": {"weight": "weight", "datetime": "time"},
    }  # fmt: skip
    config = world_recipe(tmp_path)
    tree = config.model_dump(mode="json") | {"data": data | {"prepared": str(tmp_path / "again")}}
    config = parse_config(tree)
    api.prepare(config, tables=tables)
    again = open_prepared(config.data.prepared)
    checked = 0
    for one in again.schema.relations:
        (before,) = [other for other in world.schema.relations if other.name == one.name]
        assert rows_of(again, one) == rows_of(world, before)
        checked += len(rows_of(again, one))
    assert checked > 400


def rows_of(prepared: PreparedGraph, relation: Any) -> set[tuple[Any, ...]]:
    """External IDs, weight and time of a relation's training edges."""
    edges = typed_edges(prepared, relation)
    names = [node_ids(prepared, kind) for kind in (relation.source, relation.target)]
    known = [edges.columns[name].tolist() for name in ("weight", "time") if name in edges.columns]
    ends = [[ids[place] for place in places] for ids, places in zip(names, edges.ends_2m.tolist(), strict=True)]
    rows = zip(*ends, *known, strict=True)
    return {(*sorted(row[:2]), *row[2:]) if relation.name == "friends" else row for row in rows}


def test_a_bipartite_graph_of_networkx_is_a_table_whichever_way_its_edges_go() -> None:
    graph = networkx.Graph()
    graph.add_nodes_from(["ann", "bob"], bipartite=0)
    graph.add_nodes_from([1, 2], bipartite=1)
    graph.add_edge("ann", 1, weight=5.0)
    graph.add_edge(2, "bob")
    (table,) = api.tables_from(graph).values()
    assert sorted(table.rows()) == [("ann", "1", 5.0), ("bob", "2", None)]
    assert table.columns == ["user_id", "item_id", "weight"]
    graph.add_edge("ann", "nobody")
    with pytest.raises(DataError, match="node 'nobody': has neither node_type nor bipartite"):
        api.tables_from(graph)
    with pytest.raises(DataError, match="a list is no graph that is known; expected one of NetworkX or a HeteroData"):
        api.tables_from([])


def test_a_heterodata_without_names_has_numbers_as_ids() -> None:
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = 3, 2
    data["user", "buys", "item"].edge_index = torch.tensor([[2, 0], [1, 1]])
    data["user", "buys", "item"].weight = torch.tensor([1.5, 2.5])
    table = api.tables_from(data)["buys"]
    assert table.rows() == [("2", "1", 1.5), ("0", "1", 2.5)]


def test_a_library_that_is_not_there_is_named(synthetic: PreparedGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    monkeypatch.setattr("dist_gat.convert.to_dgl.dgl", None)
    with pytest.raises(ConfigError, match=r"needs the library networkx: pip install 'dist-gat\[graphs\]'"):
        api.to_networkx(synthetic)
    with pytest.raises(ConfigError, match=r"needs the library torch_geometric: pip install 'dist-gat\[graphs\]'"):
        api.to_pyg(synthetic)
    with pytest.raises(ConfigError, match="needs DGL, which can't be loaded"):
        api.to_dgl(synthetic)
