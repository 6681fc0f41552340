"""Where nothing is drawn along a relation nobody attends along it, in inference and explanations too."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import recipe

from dist_gat import api
from dist_gat.config.model_sections import AttentionConfig
from dist_gat.config.sections import Config
from dist_gat.explain.attention_by_degree import attention_by_degree
from dist_gat.explain.trained_run import open_trained_run
from dist_gat.graph.schema import Relation, Schema
from dist_gat.nn.attention import AttentionLayer
from dist_gat.nn.edge_terms import edge_kinds
from dist_gat.sampling.block import Block

FRIENDS = {"friends": {"table": "friends.csv", "source": "user", "target": "user", "columns": {"target": "friend"}}}
NUM_USERS = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silent")
    (folder / "raw").mkdir()
    drawn = random.Random(0)
    pairs = sorted({(drawn.randrange(NUM_USERS), drawn.randrange(15)) for _ in range(220)})
    friends = [(user, (user + step) % NUM_USERS) for user in range(NUM_USERS) for step in (1, 2, 3)]
    for name, columns, rows in (("interactions", "user_id,item_id", pairs), ("friends", "user_id,friend", friends)):
        (folder / "raw" / f"{name}.csv").write_text("\n".join([columns, *(f"{a},{b}" for a, b in rows)]))
    for relations in ({}, FRIENDS):
        api.prepare(silent_recipe(folder, "prepare", relations))
    return folder


def silent_recipe(folder: Path, run: str, relations: dict[str, Any], **sections: dict[str, Any]) -> Config:
    base: dict[str, Any] = {
        "data": {"relations": relations, "prepared": str(folder / f"prepared-{len(relations)}")},
        "sampling": {"fanouts": [50, 50]},
        "train": {"num_epochs": 1},
    }
    return recipe(folder, run, base, **sections)


@pytest.mark.parametrize("scoring", ["dot", "degree"])
def test_a_silent_relation_is_as_none(folder: Path, scoring: str) -> None:
    """All edges of the other relation are drawn, so that both graphs have the same samples."""
    model, silent = {"scoring": scoring}, {"relations": {"friends": {"fanouts": [0, 0]}}}
    alone = api.train(silent_recipe(folder, f"{scoring}-alone", {}, model=model))
    expected = api.recommend(folder / f"{scoring}-alone", ["3", "7"], 5)
    for workers, access in ((1, "auto"), (2, "exchange")):
        run = f"{scoring}-{workers}"
        sampling, launch = {**silent, "access": access}, {"num_workers": workers}
        config = silent_recipe(folder, run, FRIENDS, model=model, sampling=sampling, launch=launch)
        assert api.train(config)["valid"] == pytest.approx(alone["valid"])
        found = api.recommend(folder / run, ["3", "7"], 5)
        assert found["item_id"].to_list() == expected["item_id"].to_list()
        assert found["score"].to_list() == pytest.approx(expected["score"].to_list(), rel=1e-4)
    explained = api.explain(folder / run, "3")
    assert explained["score"] == pytest.approx(explained["saved_score"], rel=1e-4)
    assert explained["others"]
    for friend in explained["others"]:
        assert (friend["weight"], friend["contribution"]) == (0, pytest.approx(0, abs=1e-6))


def test_entropy_is_that_of_the_edges_that_are_read(folder: Path) -> None:
    """Of items there are none, nor of a user with one interaction."""
    sampling = {"relations": {"friends": {"fanouts": [0, 0]}, "interacts_reversed": {"fanouts": [0, 0]}}}
    api.train(silent_recipe(folder, "uniform", FRIENDS, sampling=sampling, model={"scoring": "uniform"}))
    rows = attention_by_degree(open_trained_run(folder / "uniform"))
    assert {row["layer"] for row in rows} == {1, 2}
    assert [row["entropy"] for row in rows] == pytest.approx([1.0] * len(rows))
    assert NUM_USERS < sum(row["nodes"] for row in rows) <= 2 * NUM_USERS


def test_a_hop_may_draw_nothing(folder: Path) -> None:
    sampling = {"relations": {"friends": {"fanouts": [2, 0]}, "interacts": {"fanouts": [3, 0]}}}
    config = silent_recipe(folder, "short", FRIENDS, sampling=sampling, model={"softmax": "relation"})
    assert api.train(config)["steps"] > 0


def test_a_layer_leaves_silent_edges_out() -> None:
    schema = Schema(
        ("user",), (Relation("a", "user", "user", directed=True), Relation("b", "user", "user", directed=True))
    )
    kinds, config = edge_kinds(schema, {}), AttentionConfig(scoring="dot", terms=["relation"])
    torch.manual_seed(0)
    layer, plain = AttentionLayer(config, 16, 16, kinds, (True, False)), AttentionLayer(config, 16, 16, kinds)
    plain.load_state_dict(layer.state_dict())
    kind_DF = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    block = Block(torch.tensor([[3, 4, 5], [4, 5, 0], [1, 0, 0]]), torch.tensor([3, 2, 1]), 6, edges={"kind": kind_DF})
    kept_DF = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    few = Block(torch.tensor([[4, 5, 0], [4, 0, 0], [0, 0, 0]]), kept_DF.sum(1), 6, edges={"kind": kept_DF})
    rows_SI = torch.randn(6, 16)
    found, expected = layer(rows_SI, block), plain(rows_SI, few)
    torch.testing.assert_close(found.rows_DO, expected.rows_DO)
    assert found.alpha_DFH[0, 0] == 0
    torch.testing.assert_close(found.alpha_DFH[0, 1:], expected.alpha_DFH[0, :2])
    torch.testing.assert_close(found.alpha_DFH[1:], expected.alpha_DFH[1:])
