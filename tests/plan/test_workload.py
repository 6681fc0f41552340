"""Expected samples against sampled graphs and closed forms, and what a graph can't be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import ranking_sampler
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import graph_of, recipe

from dist_gat.base.errors import ConfigError
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.plan.graph_shape import GraphShape, expected_messages
from dist_gat.plan.workload import expected_workload
from dist_gat.sampling.graph_store import open_store


@pytest.mark.parametrize("fanouts", [[10], [10, 10], [4, 3, 2]])
@pytest.mark.parametrize("batch_size", [64, 1024])
def test_distinct_nodes_and_edges_are_those_of_a_sampled_graph(
    skewed: PreparedGraph, fanouts: list[int], batch_size: int
) -> None:
    config = recipe(skewed, fanouts=fanouts, batch_size=batch_size)
    store = open_store(skewed, Channel("sampling"), "auto")
    sampler = ranking_sampler(store, config.sampling, config.negatives, batch_size, 0, False)
    batches = [sampler.sample(store, torch.tensor([0, step])) for step in range(8)]
    expected = expected_workload(config, graph_of(skewed), 1)
    nodes = [[block.num_dst for block in reversed(batch.blocks)] + [len(batch.nodes_S)] for batch in batches]
    edges = [[int(block.count_D.sum()) for block in reversed(batch.blocks)] for batch in batches]
    assert expected.nodes == pytest.approx(np.mean(nodes, axis=0), rel=0.1)
    assert expected.edges == pytest.approx(np.mean(edges, axis=0), rel=0.1)
    assert expected.foreign == [0.0] * (len(fanouts) + 1)


def test_a_step_of_all_edges_reaches_every_node_and_no_more() -> None:
    """With alike degrees of 40, the fan-outs take nearly all."""
    found = expected_workload(recipe(fanouts=[40, 40], batch_size=10**6), GraphShape(1000, 20_000, 0.5, 0, 0), 1)
    assert found.nodes[-1] == pytest.approx(1000, rel=1e-6)


def test_seed_nodes_are_the_birthday_problem() -> None:
    """B seeds over alike users and items, and shared negatives over the items: n (1 - exp(-draws / n)) each."""
    found = expected_workload(recipe(fanouts=[], batch_size=500), GraphShape(4000, 40_000, 0.25, 0, 0), 1)
    users, items = 1000 * (1 - np.exp(-500 / 1000)), 3000 * (1 - np.exp(-(500 + 64) / 3000))
    assert found.nodes == pytest.approx([users + items])


@given(st.integers(1, 6), st.floats(0, 2), st.floats(0, 2))
def test_classes_hold_all_nodes_and_all_edges(scale: int, user_skew: float, item_skew: float) -> None:
    graph = GraphShape(10**scale + 50, 10**scale, 0.3, user_skew, item_skew)
    found = expected_messages(recipe(), graph)
    assert found.count_TD.sum(axis=1).tolist() == [graph.num_users, graph.num_items]
    for degree_TD in (found.in_KD, found.out_KD[::-1]):
        assert (degree_TD * found.count_TD).sum(axis=1) == pytest.approx([graph.num_edges] * 2)
        assert (degree_TD <= np.array([[graph.num_items], [graph.num_users]]) + 1e-6).all()


@settings(max_examples=40)
@given(st.integers(1, 31), st.floats(0, 1), st.sampled_from([[5], [10, 10], [3, 3, 3]]))
def test_more_workers_sample_less_each_and_more_of_it_is_remote(
    workers: int, edge_cut: float, fanouts: list[int]
) -> None:
    graph = GraphShape(10**6, 10**7)
    config = recipe(fanouts=fanouts, batch_size=4096, num_parts=32)
    few, many = (expected_workload(config, graph, count) for count in (workers, workers + 1))
    assert many.nodes[-1] <= few.nodes[-1]
    assert many.foreign[-1] / many.nodes[-1] >= few.foreign[-1] / few.nodes[-1] - 1e-9
    # an assignment that keeps more edges together than a random one
    cut = expected_workload(config, GraphShape(10**6, 10**7, edge_cut=edge_cut * workers / (workers + 1)), workers + 1)
    assert cut.foreign[-1] <= many.foreign[-1] + 1e-6


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_nodes": 1}, "two nodes"),
        ({"num_edges": 0}, "one edge"),
        ({"num_nodes": -5}, "nodes=-5"),
        ({"num_edges": 10**9}, "at most"),
        ({"users": 0.0}, "share"),
        ({"users": 1.0}, "share"),
        ({"user_skew": -1.0}, "skew"),
        ({"item_skew": float("nan")}, "skew"),
        ({"edge_cut": 1.5}, "edge_cut"),
    ],
)
def test_impossible_graphs_are_refused(changes: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        GraphShape(**{"num_nodes": 1000, "num_edges": 5000, **changes})  # type: ignore[arg-type]
