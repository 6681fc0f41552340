"""Layer-wise inference and ranking against dense computations, the same bits on 1, 2 and 4 ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, Ranks, adjacency, split_pairs
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.full_ranking import rank_representations, ranking_metrics
from dist_gat.evaluate.inference import MIN_WIDTH, Turn, degree_chunks, infer_representations, turns_of
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import join_workers
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.schema import INTERACTIONS, Relation, Schema
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.block import Block
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.ownership import share_nodes
from dist_gat.sampling.sampler import gather_features

LAYERS = 2
EVALUATE = EvaluateConfig(ks=[5, 10], user_chunk=7, edge_chunk=60)


def model_config(**settings: Any) -> ModelConfig:
    return ModelConfig.model_validate({"embedding_size": 16, "init_std": 1.0, **settings})


def infer_and_rank(
    folder: Path, settings: dict[str, Any], features: bool = True, num_users: int | None = None
) -> dict[str, Any]:
    """This rank's representations, rankings and metrics, in plain arrays."""
    worker = join_workers(torch.device("cpu"), 1, 30)
    prepared = open_prepared(folder)
    store = open_store(prepared, worker.sampling, "auto")
    sizes = prepared.layouts if features else {}
    model = build_recommender(model_config(**settings), LAYERS, sizes, store.ownership, worker.rows, 0)
    table = model.table.weight.detach().clone()
    with torch.no_grad():
        rows = infer_representations(model, store, EVALUATE.edge_chunk)
        ranked = model.decoder.ranking_rows(rows)
        sample = sample_users(prepared, INTERACTS, "test", store.own_parts, num_users, 5, worker.control)
        rankings = rank_representations(ranked, store, worker, INTERACTS, "test", EVALUATE, sample.users)
    assert torch.equal(model.table.weight, table), "inference reads the table"
    metrics = ranking_metrics(rankings, prepared, worker.control, INTERACTS, "test", EVALUATE.ks)
    found = {int(u): items for r in rankings for u, items in zip(r.users, r.items.tolist(), strict=True)}
    return {"rows": rows.numpy(), "ranked": ranked.numpy(), "items": found, "metrics": metrics}


@pytest.mark.parametrize(
    "settings",
    [
        {"scoring": "dot", "num_heads": 2},
        {"scoring": "degree", "residual": False},
        {"scoring": "additive", "num_heads": 2},
        {"scoring": "additive_v2", "num_heads": 2},
    ],
)
def test_the_ranks_have_the_bits_of_one(synthetic: PreparedGraph, ranks: Ranks, settings: dict[str, Any]) -> None:
    alone = infer_and_rank(synthetic.folder, settings)
    for world_size in (2, 4):
        parted = ranks.run(world_size, infer_and_rank, synthetic.folder, settings)
        assert np.array_equal(np.concatenate([rank["rows"] for rank in parted]), alone["rows"])
        assert {user: items for rank in parted for user, items in rank["items"].items()} == alone["items"]
        assert all(rank["metrics"] == alone["metrics"] for rank in parted)


def test_degree_layers_are_lightgcn_on_the_full_graph(holed: PreparedGraph) -> None:
    settings = {"scoring": "degree", "residual": False, "combination": "mean"}
    rows = infer_and_rank(holed.folder, settings)["rows"]
    edges = adjacency(holed).toarray()
    degree = np.maximum(edges.sum(axis=1), 1)
    propagate = edges / np.sqrt(degree[:, None] * degree)
    table = model_of(holed, settings).table.weight.detach().numpy()
    expected = (table + propagate @ table + propagate @ propagate @ table) / 3
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("combination", ["last", "mean", "concat"])
@pytest.mark.parametrize("graph", ["synthetic", "holed"])
def test_combinations_are_those_of_training(request: pytest.FixtureRequest, combination: str, graph: str) -> None:
    """With and without input features, whose sum with the table is a tensor of its own."""
    prepared = request.getfixturevalue(graph)
    assert bool(prepared.layouts) == (graph == "synthetic")
    settings = {"scoring": "degree", "residual": False, "combination": combination}
    edges = adjacency(prepared).toarray()
    degree = np.maximum(edges.sum(axis=1), 1)
    propagate = torch.from_numpy(edges / np.sqrt(degree[:, None] * degree))
    model = model_of(prepared, settings)
    store = open_store(prepared, Channel("sampling"), "auto")
    inputs = gather_features(store, np.arange(len(edges)))
    below = model.dense.inputs(model.table.weight, inputs).detach().double()
    expected = model.encoder.combine([below, propagate @ below, propagate @ propagate @ below])
    rows = infer_and_rank(prepared.folder, settings)["rows"]
    # float32 against float64, and rows of up to a hundred
    np.testing.assert_allclose(rows, expected.numpy(), rtol=1e-5, atol=1e-5)


def model_of(prepared: PreparedGraph, settings: dict[str, Any]) -> Any:
    worker = join_workers(torch.device("cpu"), 1, 30)
    owned = share_nodes(prepared.ranges, 1, 0)
    return build_recommender(model_config(**settings), LAYERS, prepared.layouts, owned, worker.rows, 0)


def test_attention_is_over_all_neighbours(holed: PreparedGraph) -> None:
    settings = {"scoring": "dot"}
    model = model_of(holed, settings)
    edges = adjacency(holed).toarray()
    count = edges.sum(axis=1).astype(int)
    everyone = np.argsort(-edges, axis=1, kind="stable")
    block = Block(torch.from_numpy(everyone), torch.from_numpy(count), len(edges))
    with torch.no_grad():
        depths = [model.table.weight]
        for layer in model.encoder.layers:
            depths.append(layer(depths[-1], block).rows_DO)
        expected = model.encoder.combine(depths)
    np.testing.assert_allclose(infer_and_rank(holed.folder, settings)["rows"], expected.numpy(), atol=1e-5)


def test_ranking_is_a_brute_force_sort_without_known_items(synthetic: PreparedGraph) -> None:
    found = infer_and_rank(synthetic.folder, {"scoring": "dot"})
    is_item = synthetic.ranges.is_of_type(np.arange(synthetic.ranges.num_nodes), ITEM)
    met = {tuple(pair) for split in ("train", "valid") for pair in split_pairs(synthetic, split).tolist()}
    truth: dict[int, set[int]] = {}
    for user, item in split_pairs(synthetic, "test").tolist():
        truth.setdefault(user, set()).add(item)
    recall = []
    for user, items in found["items"].items():
        scores = found["ranked"][is_item] @ found["ranked"][user]
        order = np.flatnonzero(is_item)[np.argsort(-scores, kind="stable")]
        expected = [int(item) for item in order if (user, int(item)) not in met][:10]
        assert items == expected
        if user in truth:
            recall.append(len(truth[user] & set(expected)) / len(truth[user]))
    assert found["metrics"]["recall@10"] == pytest.approx(np.mean(recall))
    assert found["metrics"]["num_users"] == len(recall)


def test_chunks_cover_a_part_within_their_bound() -> None:
    degree = np.array([60, 0, 1000, 20, 140, 140, 40, 0])
    chunks = list(degree_chunks(np.concatenate([[0], np.cumsum(degree)]), 240))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(8))
    assert max(map(len, chunks)) > 1
    for rows in chunks:
        assert len(rows) == 1 or len(rows) * max(degree[rows].max(), MIN_WIDTH) <= 240


TYPES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@given(TYPES.flatmap(lambda kinds: st.tuples(st.just(kinds), st.lists(st.tuples(*[st.sampled_from(kinds)] * 2)))))
def test_no_row_is_written_over_before_all_have_read_it(case: tuple[list[str], list[tuple[str, str]]]) -> None:
    """Of any schema, with relations of a type with itself too."""
    kinds, ends = case
    schema = Schema(tuple(kinds), tuple(Relation(f"r{n}", *pair) for n, pair in enumerate(ends)))
    written: list[str] = []
    for turn in turns_of(kinds, schema):
        # nodes of the type are computed, and read old rows of their neighbours
        assert not schema.read_by(turn.kind) & set(written)
        if turn.writes_at_once:
            assert turn.kind not in schema.read_by(turn.kind)
            written.append(turn.kind)
        written += turn.then_written
    assert sorted(written) == sorted(kinds), "every type is written, once"


def test_of_users_and_items_one_waits_and_the_other_does_not() -> None:
    assert turns_of(["item", "user"], INTERACTIONS) == [Turn("item", False, ()), Turn("user", True, ("item",))]
