"""A fixed sample of the users that metrics are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, Ranks, same_on_all, split_pairs

from dist_gat.baselines.baseline import evaluate_baseline
from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.full_ranking import judge, rank_representations
from dist_gat.evaluate.metrics import metric_names, user_metrics
from dist_gat.evaluate.slices import slice_metrics
from dist_gat.evaluate.split_metrics import split_metrics
from dist_gat.evaluate.user_sample import UserSample, sample_users
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import join_workers, lone_worker
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.graph_store import open_store

KS = [1, 4]
SEED = 7


def sample_of(prepared: PreparedGraph, num_users: int | None, split: str = "test", seed: int = SEED) -> UserSample:
    parts = range(prepared.ranges.num_parts)
    return sample_users(prepared, INTERACTS, split, parts, num_users, seed, Channel("alone"))


def everyone(sample: UserSample) -> list[int]:
    return np.concatenate(list(sample.users.values())).tolist()


@pytest.mark.parametrize("num_users", [1, 10, 40])
def test_a_sample_has_so_many_users_and_a_larger_one_has_them_too(synthetic: PreparedGraph, num_users: int) -> None:
    found = everyone(sample_of(synthetic, num_users))
    tested = np.unique(split_pairs(synthetic, "test")[:, 0])
    assert len(found) == num_users
    assert set(found) <= set(tested.tolist())
    assert set(found) < set(everyone(sample_of(synthetic, num_users + 5)))
    assert found == sorted(found)
    assert sample_of(synthetic, num_users).counts == {"num_all_users": len(tested)}


def test_a_sample_of_as_many_as_there_are_is_everyone(synthetic: PreparedGraph) -> None:
    tested = np.unique(split_pairs(synthetic, "test")[:, 0])
    for num_users in (None, len(tested), len(tested) + 1):
        sample = sample_of(synthetic, num_users)
        assert everyone(sample) == tested.tolist()
        assert sample.has(np.arange(synthetic.ranges.num_nodes)).all()
        assert sample.counts == {}


def test_the_seed_chooses_and_all_splits_agree(synthetic: PreparedGraph) -> None:
    """Whoever is in both splits and among the first of one is likely in the other: the draw is the user's own."""
    assert everyone(sample_of(synthetic, 20)) != everyone(sample_of(synthetic, 20, seed=8))
    valid, test = sample_of(synthetic, 20, "valid"), sample_of(synthetic, 20)
    both = np.intersect1d(*(split_pairs(synthetic, split)[:, 0] for split in ("valid", "test")))
    assert valid.last is not None
    assert test.last is not None
    narrow, wide = sorted((valid, test), key=lambda sample: sample.last or 0)
    assert set(both[narrow.has(both)]) <= set(both[wide.has(both)])


def measured(folder: Path, num_users: int | None) -> dict[str, Any]:
    """Of an untrained model: metrics, slices, and each ranked user's hits."""
    worker = join_workers(torch.device("cpu"), 1, 30)
    prepared = open_prepared(folder)
    store = open_store(prepared, worker.sampling, "auto")
    settings = ModelConfig.model_validate({"embedding_size": 5, "init_std": 1.0})
    rows = build_recommender(settings, 0, {}, store.ownership, worker.rows, 0).table.weight.detach()
    config = EvaluateConfig(ks=KS, user_chunk=7, num_users=num_users)
    sample = sample_users(prepared, INTERACTS, "test", store.own_parts, num_users, SEED, worker.control)
    judged = judge(
        rank_representations(rows, store, worker, INTERACTS, "test", config, sample.users), prepared, INTERACTS, "test"
    )
    return {
        "metrics": split_metrics(rows, store, worker, INTERACTS, "test", config, SEED),
        "slices": slice_metrics(judged, store, worker.control, INTERACTS, "test", KS),
        "hits": {
            int(user): (hits.tolist(), int(count))
            for part in judged
            for user, hits, count in zip(part.users, part.hits, part.num_relevant, strict=True)
        },
    }


@pytest.mark.parametrize("num_users", [1, 25])
def test_metrics_of_a_sample_are_those_of_its_users_among_all(synthetic: PreparedGraph, num_users: int) -> None:
    alone, some = measured(synthetic.folder, None), measured(synthetic.folder, num_users)
    chosen = everyone(sample_of(synthetic, num_users))
    assert some["hits"] == {user: alone["hits"][user] for user in chosen}
    rows = [user_metrics(np.array([hits]), np.array([count]), KS)[0] for hits, count in some["hits"].values()]
    expected = dict(zip(metric_names(KS), np.mean(rows, axis=0), strict=True))
    counts = {"num_users": num_users, "num_all_users": len(alone["hits"])}
    assert some["metrics"] == pytest.approx(expected | counts)
    for side in ("users", "items"):
        judged = [row["num_users"] for row in some["slices"][side].values()]
        assert sum(judged) == num_users if side == "users" else max(judged) <= num_users
        for name, row in some["slices"][side].items():
            assert row["num_nodes"] == alone["slices"][side][name]["num_nodes"]


def test_a_sample_of_everyone_has_the_bits_of_all(synthetic: PreparedGraph) -> None:
    alone = measured(synthetic.folder, None)
    assert measured(synthetic.folder, 10_000) == alone


@pytest.mark.parametrize("graph", ["synthetic", "holed", "empty_part"])
def test_the_ranks_have_the_sample_of_one(request: pytest.FixtureRequest, ranks: Ranks, graph: str) -> None:
    prepared: PreparedGraph = request.getfixturevalue(graph)
    num_users = {"synthetic": 25, "holed": 1, "empty_part": 1}[graph]
    alone = measured(prepared.folder, num_users)
    for world_size in (2, 4):
        parted = ranks.run(world_size, measured, prepared.folder, num_users)
        assert same_on_all([rank["metrics"] for rank in parted]) == alone["metrics"]
        assert same_on_all([rank["slices"] for rank in parted]) == alone["slices"]
        assert {user: hits for rank in parted for user, hits in rank["hits"].items()} == alone["hits"]


def test_a_baseline_is_measured_on_the_same_users(synthetic: PreparedGraph) -> None:
    config = EvaluateConfig(ks=KS, num_users=1)
    found = evaluate_baseline("popularity", synthetic, INTERACTS, "test", config, "", SEED, lone_worker())
    metrics = found["metrics"]
    (user,) = everyone(sample_of(synthetic, 1))
    train = split_pairs(synthetic, "train")
    degree = np.bincount(train[:, 1], minlength=synthetic.ranges.num_nodes)
    met = {item for split in ("train", "valid") for u, item in split_pairs(synthetic, split).tolist() if u == user}
    items = sorted({int(item) for item in train[:, 1]} - met, key=lambda item: (-degree[item], item))
    truth = {item for u, item in split_pairs(synthetic, "test").tolist() if u == user}
    assert metrics["recall@4"] == pytest.approx(len(truth & set(items[:4])) / len(truth))
    assert (metrics["num_users"], metrics["num_all_users"]) == (1, sample_of(synthetic, None).num_all)
