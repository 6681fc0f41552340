"""The sub-graph against layer-wise inference over the whole graph, and its edges deleted against a smaller graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ITEM, USER, adjacency, prepare_pairs, random_pairs, split_pairs

from dist_gat.config.model_sections import ModelConfig
from dist_gat.evaluate.inference import infer_representations
from dist_gat.exchange.channel import Channel
from dist_gat.explain.neighborhood import Neighborhood, encode_targets, find_neighborhood, positions
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.recommender import Recommender, build_recommender
from dist_gat.sampling.graph_store import GraphStore, open_store
from dist_gat.sampling.ownership import share_nodes
from dist_gat.sampling.sampler import gather_features

SCORINGS = ["dot", "dot_exp", "additive", "additive_v2", "uniform", "degree"]


def model_and_store(prepared: PreparedGraph, num_layers: int, **settings: Any) -> tuple[Recommender, GraphStore]:
    config = ModelConfig.model_validate({"embedding_size": 16, "init_std": 1.0, "num_heads": 2, **settings})
    owned = share_nodes(prepared.ranges, 1, 0)
    model = build_recommender(config, num_layers, prepared.layouts, owned, Channel("rows"), 0)
    return model, open_store(prepared, Channel("sampling"), "auto")


def targets_of(prepared: PreparedGraph) -> np.ndarray:
    """A user of the last part and an item of the first, in this order: not that of their IDs."""
    last = prepared.ranges.num_parts - 1
    return np.array([prepared.ranges.nodes_of_type(last, USER)[-1], prepared.ranges.nodes_of_type(0, ITEM)[0]])


def encode(model: Recommender, store: GraphStore, near: Neighborhood, edge_chunk: int = 60) -> Any:
    with torch.no_grad():
        rows_SE = model.dense.inputs(
            model.table.weight[torch.from_numpy(near.nodes)], gather_features(store, near.nodes)
        )
    return encode_targets(model.encoder, near, rows_SE, edge_chunk)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_targets_have_the_representations_of_full_inference(
    synthetic: PreparedGraph, scoring: str, num_layers: int
) -> None:
    model, store = model_and_store(synthetic, num_layers, scoring=scoring)
    targets = targets_of(synthetic)
    everyone = infer_representations(model, store, 60)
    found = encode(model, store, find_neighborhood(store, targets, num_layers))
    torch.testing.assert_close(found.rows_NR, everyone[torch.from_numpy(targets)], rtol=1e-5, atol=1e-5)


def test_the_sub_graph_is_what_the_layers_reach_and_no_more(holed: PreparedGraph) -> None:
    _, store = model_and_store(holed, 2)
    edges = adjacency(holed).toarray() > 0
    target = targets_of(holed)[:1]
    near = find_neighborhood(store, target, 2)
    one_hop = set(target.tolist()) | set(np.flatnonzero(edges[target[0]]).tolist())
    two_hops = one_hop | set(np.flatnonzero(edges[sorted(one_hop)].any(axis=0)).tolist())
    assert [set(near.nodes[:end].tolist()) for end in near.hop_ends] == [set(target.tolist()), one_hop, two_hops]
    for place, node in enumerate(near.nodes[: near.hop_ends[1]]):
        assert near.nodes[near.indices[near.edges_of(place)]].tolist() == np.flatnonzero(edges[node]).tolist()
    assert near.in_degree.tolist() == edges.sum(axis=1)[near.nodes].tolist()


@pytest.mark.parametrize("scoring", SCORINGS)
def test_attention_weights_lie_at_their_edges(holed: PreparedGraph, scoring: str) -> None:
    """Weights of the whole graph in one block a layer are the oracle."""
    model, store = model_and_store(holed, 2, scoring=scoring)
    targets = targets_of(holed)
    near = find_neighborhood(store, targets, 2)
    whole = find_neighborhood(store, np.arange(holed.ranges.num_nodes), 2)
    some, all_of_them = encode(model, store, near, edge_chunk=7), encode(model, store, whole, edge_chunk=10_000)
    assert [len(alpha) for alpha in some.alphas] == [near.num_edges, near.indptr[len(targets)]]
    for layer, alpha in enumerate(some.alphas):
        for place in range(near.hop_ends[1 - layer]):
            expected = all_of_them.alphas[layer][whole.edges_of(int(near.nodes[place]))]
            torch.testing.assert_close(alpha[near.edges_of(place)], expected, rtol=1e-5, atol=1e-6)
    if scoring != "degree":
        sums = alpha[near.edges_of(0)].sum(dim=0)
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_deleted_edge_is_one_that_was_never_there(tmp_path: Path, scoring: str) -> None:
    # with fewer layers no message of the target goes back over a deleted edge
    num_layers = 3
    pairs = random_pairs(12, 9, 0.6)  # so that nobody loses the only edge
    # hashing assigns by ID alone, so a smaller graph of the same IDs has the same nodes
    whole = prepare_pairs(tmp_path / "whole", pairs, num_parts=3, method="hash")
    model, store = model_and_store(whole, num_layers, scoring=scoring)
    user, item = targets_of(whole)
    near = find_neighborhood(store, np.array([user, item]), num_layers)
    sources = near.indices[near.edges_of(0)][:2]
    users, items = (dict(whole.ids(kind).select("node_id", "external_id").rows()) for kind in ("user", "item"))
    gone = {(users[user], items[int(node)]) for node in near.nodes[sources]}
    rest = [pair for pair in pairs if pair not in gone]
    assert len(rest) == len(pairs) - 2
    smaller = prepare_pairs(tmp_path / "smaller", rest, num_parts=3, method="hash")
    assert all(smaller.ids(kind).equals(whole.ids(kind)) for kind in ("user", "item")), "the same nodes"
    _, smaller_store = model_and_store(smaller, num_layers, scoring=scoring)
    expected = infer_representations(model, smaller_store, 60)
    found = encode(model, store, near.without(0, sources)).rows_NR
    torch.testing.assert_close(found, expected[[user, item]], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, encode(model, store, near).rows_NR, atol=1e-3), "the edges matter"


def test_a_target_without_neighbours_stands_alone(holed: PreparedGraph) -> None:
    lonely = sorted(set(range(holed.ranges.num_nodes)) - set(split_pairs(holed, "train").ravel().tolist()))
    model, store = model_and_store(holed, 2)
    near = find_neighborhood(store, np.array(lonely[:1]), 2)
    assert (len(near.nodes), near.num_edges) == (1, 0)
    everyone = infer_representations(model, store, 60)
    torch.testing.assert_close(encode(model, store, near).rows_NR, everyone[lonely[:1]])


def test_positions_are_runs() -> None:
    assert positions(np.array([5, 9, 0]), np.array([2, 0, 3])).tolist() == [5, 6, 0, 1, 2]
