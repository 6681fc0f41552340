"""Metrics of cold and warm items, and of new users, against loops; the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, Ranks, prepare, split_pairs

from dist_gat.base.random import Purpose, make_key
from dist_gat.baselines.baseline import OF_HISTORIES, PLAIN, evaluate_baseline
from dist_gat.config.sections import BaselineConfig, EvaluateConfig, NegativesConfig
from dist_gat.config.task_sections import AMONG, COLD_METRICS
from dist_gat.data.synthetic import write_synthetic
from dist_gat.evaluate.new_user_metrics import History, cold_histories, new_user_metrics
from dist_gat.evaluate.split_metrics import split_metrics
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import join_workers, lone_worker
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.nn.inputs.id_embedding import EmbeddingShard
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.negatives import NegativeSampler

BASELINE = BaselineConfig(als_factors=4, als_iterations=2, gfcf_factors=3)
EVALUATE = EvaluateConfig(ks=[2, 5], user_chunk=7, baseline=BASELINE)
SPLIT = {"method": "random", "valid_ratio": 0.1, "test_ratio": 0.1, "cold_items": 0.2, "cold_users": 0.1}


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    folder = tmp_path_factory.mktemp("cold")
    write_synthetic(folder, 120, 60, 4, 12, 0.2, seed=0)
    return prepare(folder, {"interactions": "interactions.csv", "split": SPLIT}, 4, "hash")


def measured(folder: Path) -> dict[str, Any]:
    worker, prepared = join_workers(torch.device("cpu"), 1, 30), open_prepared(folder)
    store = open_store(prepared, worker.sampling, "auto")
    rows = EmbeddingShard(store.ownership, 5, worker.rows, 0, 1.0).weight.detach()
    return {"rows": rows.numpy(), "metrics": split_metrics(rows, store, worker, INTERACTS, "test", EVALUATE, 0)}


def cold_nodes(prepared: PreparedGraph, number: int) -> set[int]:
    found = set()
    for part in prepared.parts:
        first = prepared.ranges.nodes_of_type(part.number, ITEM).start
        found |= {first + int(place) for place in np.flatnonzero(part.cold(ITEM) == number)}
    return found


def test_each_metric_is_what_a_full_sort_says(cold: PreparedGraph) -> None:
    found = measured(cold.folder)
    rows, items = found["rows"], np.flatnonzero(cold.ranges.is_of_type(np.arange(len(found["rows"])), ITEM))
    is_cold = cold_nodes(cold, 2)
    assert len(is_cold) == 12
    met = {tuple(pair) for split in ("train", "valid") for pair in split_pairs(cold, split).tolist()}
    test = split_pairs(cold, "test").tolist()
    sets = {"cold": is_cold, "warm": set(items.tolist()) - is_cold, "": set(items.tolist())}
    for name in COLD_METRICS:
        kind, _, among = name.partition(AMONG)
        recalls = []
        for user in sorted({user for user, item in test if item in sets[kind]}):
            relevant = {item for one, item in test if one == user and item in sets[kind]}
            free = [item for item in items.tolist() if item in sets[among] and (user, item) not in met]
            best = sorted(free, key=lambda item: (-float(rows[user] @ rows[item]), item))[:5]  # noqa: B023
            recalls.append(len(relevant & set(best)) / len(relevant))
        assert found["metrics"][f"{name}/recall@5"] == pytest.approx(np.mean(recalls)), name
        assert found["metrics"][f"{name}/num_users"] == len(recalls)
    # among fewer items more of them are found
    assert found["metrics"]["cold_among_cold/recall@5"] > found["metrics"]["cold/recall@5"]


def test_the_same_on_two_ranks(cold: PreparedGraph, ranks: Ranks) -> None:
    alone = measured(cold.folder)["metrics"]
    assert [found["metrics"] for found in ranks.run(2, measured, cold.folder)] == [alone, alone]


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_no_item_without_a_training_pair_is_a_negative(cold: PreparedGraph, distribution: Any) -> None:
    store = open_store(cold, Channel("test"), "auto")
    drawn = store.draw_targets(INTERACTS, distribution, make_key(1, Purpose.NEGATIVES), np.arange(20_000))
    trained = set(split_pairs(cold, "train")[:, 1].tolist())
    assert set(drawn.tolist()) == trained
    sampler = NegativeSampler(store, INTERACTS, NegativesConfig(num_shared=10), 0)
    expected = sampler.log_expected_count(np.ones(1, np.int64), 5)
    assert np.exp(expected) == pytest.approx(10 / len(trained))


def test_baselines_survive_items_without_a_training_pair(cold: PreparedGraph) -> None:
    for name in PLAIN:
        found = evaluate_baseline(name, cold, INTERACTS, "test", EVALUATE, "", 0, lone_worker(), [1, 3])["metrics"]
        assert all(np.isfinite(value) for value in found.values())
        assert found["cold/num_users"] > 9
        assert ("new_users_from_3/recall@5" in found) == (name in OF_HISTORIES)


def test_the_history_of_a_new_user_is_its_first_interactions(cold: PreparedGraph) -> None:
    seen: list[list[History]] = []

    def best(histories: Sequence[History]) -> np.ndarray:
        seen.append(list(histories))
        # all but the last of what is left, and an item of nobody
        items = [everything[history.name][len(history.items) :] for history in histories]
        return np.array([[*own[:4], -1] for own in items])

    table = cold.cold_users("test")
    everything = {
        str(name): own.sort("time")["item"].to_list() for (name,), own in table.group_by(["user_id"])
    }  # fmt: skip
    assert len(everything) == 12
    found = new_user_metrics(best, cold, "test", [1, 8, 50], EVALUATE, 0)
    assert {len(history.items) for history in seen[1]} == {8}
    assert all(history.items.tolist() == everything[history.name][:8] for history in seen[1])
    assert found["new_users_from_8/recall@5"] == 1
    assert found["new_users_from_1/recall@5"] == pytest.approx(4 / 11)
    assert not any("_50/" in name for name in found), "nobody has so many"
    assert len(cold_histories(cold, "test", 5, 0)) == 5
