"""What edges carry, against the tables of a small world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from small_world import expected_edges, world_recipe, write_world

from dist_gat.api import prepare
from dist_gat.exchange.channel import Channel
from dist_gat.explain.edge_facts import category_name, edge_facts
from dist_gat.explain.neighborhood import find_neighborhood
from dist_gat.graph.made_from import open_made
from dist_gat.sampling.graph_store import open_store


def test_relation_value_category_and_rank_are_those_of_the_tables(tmp_path: Path) -> None:
    write_world(tmp_path / "raw")
    config = world_recipe(tmp_path)
    prepare(config)
    prepared = open_made(config)
    store = open_store(prepared, Channel("sampling"), "auto")
    names = {
        node: name
        for kind in prepared.schema.node_types
        for name, node in prepared.ids(kind).select("external_id", "node_id").rows()
    }
    train = {
        (names[user], names[item])
        for part in prepared.parts
        for user, item in part.pairs(prepared.schema.relations[0], "train").tolist()
    }
    expected = expected_edges(tmp_path / "raw", train)
    targets = np.array([node for node, name in names.items() if name in ("u3", "u7", "i2", "e5")])
    near = find_neighborhood(store, targets, 1)
    for place, node in enumerate(targets.tolist()):
        edges = near.edges_of(place)
        facts = edge_facts(near, place, np.arange(edges.stop - edges.start))
        found = set()
        for source, one in zip(near.nodes[near.indices[edges]].tolist(), facts, strict=True):
            time = pl.Series([one["time"]]).str.to_datetime().dt.epoch("s")[0] if "time" in one else 0
            category = one.get("category", "").replace(" (reversed)", " reversed")
            found.add((one["relation"], names[source], category, one.get("value", 0.0), time))
        mine = [edge for edge in expected if edge[1] == names[node]]
        assert found == {(kind.rstrip("<"), source, *carried) for kind, _, source, *carried in mine}
        dated = sorted((edge[-1] for edge in mine if edge[-1]), reverse=True)
        ranked = [one for one in facts if "rank" in one]
        assert [one["rank"] for one in ranked] == list(range(1, len(dated) + 1))
        assert [one["seconds_before_newest"] for one in ranked] == [dated[0] - time for time in dated]


def test_a_reversed_category_is_told() -> None:
    assert [category_name(("a", "b"), number) for number in (0, 1, 3)] == ["a", "b", "b (reversed)"]
