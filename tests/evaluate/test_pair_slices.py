"""Slices of predicted pairs against loops over pairs; the same on 1, 2 and 4 ranks."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, Ranks, same_on_all, split_pairs

from dist_gat.evaluate.degrees import item_slices, user_slices
from dist_gat.evaluate.pair_slices import pair_slices
from dist_gat.evaluate.pair_values import PairValues
from dist_gat.exchange.worker import join_workers
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.sampling.graph_store import open_store
from dist_gat.tasks.clicks import ClickLikelihood

CLICKS = ClickLikelihood()


def made_up_predictions(prepared: PreparedGraph) -> PairValues:
    pairs, rng = split_pairs(prepared, "test"), np.random.default_rng(0)
    return PairValues(pairs, rng.integers(0, 2, len(pairs)).astype(np.float64), rng.random(len(pairs)))


def slices_of(folder: Path, access: str = "auto") -> dict[str, Any]:
    worker = join_workers(torch.device("cpu"), 1, 30)
    prepared = open_prepared(folder)
    store = open_store(prepared, worker.sampling, access)
    return {
        "found": pair_slices(made_up_predictions(prepared), CLICKS.metrics, store, worker.control, INTERACTS),
        "described": {
            "users": user_slices(store, worker.control, INTERACTS.source).describe(),
            "items": item_slices(store, worker.control, INTERACTS.target).describe(),
        },
    }


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("data", ["synthetic", "holed"])
def test_a_slice_has_the_metrics_of_its_pairs(data: str, side: int, request: pytest.FixtureRequest) -> None:
    prepared = request.getfixturevalue(data)
    degree = Counter(split_pairs(prepared, "train").ravel().tolist())
    predicted, result = made_up_predictions(prepared), slices_of(prepared.folder)
    name = ("users", "items")[side]
    for slice_name, found in result["found"][name].items():
        described = result["described"][name][slice_name]
        assert {key: found[key] for key in described} == described
        degrees = np.array([degree[node] for node in predicted.pairs[:, side].tolist()])
        mine = (degrees >= found["min_degree"]) & (degrees <= found["max_degree"]) & (described["num_nodes"] > 0)
        pairs = predicted.pairs[mine]
        assert found["num_pairs"] == len(pairs)
        assert (found["num_users"], found["num_items"]) == tuple(len(set(nodes)) for nodes in pairs.T.tolist())
        if not len(pairs):
            assert math.isnan(found["auc"])
            assert math.isnan(found["log_loss"])
            continue
        expected = CLICKS.metrics(predicted.labels[mine], predicted.values[mine], pairs[:, 0])
        np.testing.assert_equal({key: found[key] for key in expected}, expected)


def test_a_slice_of_one_label_has_no_auc_instead_of_zero(holed: PreparedGraph) -> None:
    found = slices_of(holed.folder)["found"]["items"]["cold"]
    assert found["num_pairs"] == len(made_up_predictions(holed).labels) == 2
    assert made_up_predictions(holed).labels.tolist() == [1, 1]
    assert math.isnan(found["auc"])
    assert found["log_loss"] > 0


@pytest.mark.parametrize(("world_size", "access"), [(1, "exchange"), (2, "auto"), (4, "exchange")])
def test_the_ranks_have_the_bits_of_one(holed: PreparedGraph, ranks: Ranks, world_size: int, access: str) -> None:
    alone = slices_of(holed.folder)
    np.testing.assert_equal(same_on_all(ranks.run(world_size, slices_of, holed.folder, access)), alone)
