"""Slices, coverage, novelty and diversity against loops over users and items; the same bits on 1, 2 and 4 ranks."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTERACTS, ITEM, USER, Ranks, split_pairs

from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate import beyond_accuracy as beyond
from dist_gat.evaluate.full_ranking import judge, rank_representations
from dist_gat.evaluate.metrics import metric_names
from dist_gat.evaluate.slices import slice_metrics
from dist_gat.evaluate.user_sample import sample_users
from dist_gat.exchange.worker import join_workers
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.ownership import Ownership

EVALUATE = EvaluateConfig(ks=[1, 4], user_chunk=7)
KS = EVALUATE.ks


def slices_and_lists(folder: Path, access: str = "auto", num_users: int | None = None) -> dict[str, Any]:
    """Of an untrained model: its rows, the users' best items, and all that is computed of them."""
    worker = join_workers(torch.device("cpu"), 1, 30)
    prepared = open_prepared(folder)
    store = open_store(prepared, worker.sampling, access)
    settings = ModelConfig.model_validate({"embedding_size": 5, "init_std": 1.0})
    table = build_recommender(settings, 0, {}, store.ownership, worker.rows, 0).table
    rows = table.weight.detach()
    sample = sample_users(prepared, INTERACTS, "test", store.own_parts, num_users, 0, worker.control)
    rankings = rank_representations(rows, store, worker, INTERACTS, "test", EVALUATE, sample.users)
    judged = judge(rankings, prepared, INTERACTS, "test")
    # few lists a chunk, so that ranks have different numbers of chunks
    beyond.CHUNK_CELLS = 3 * 4 * 5
    return {
        "slices": slice_metrics(judged, store, worker.control, INTERACTS, "test", KS),
        "beyond": beyond.beyond_accuracy(judged, rows, store, worker, INTERACTS, KS),
        "rows": rows.numpy(),
        "lists": {int(u): items for part in judged for u, items in zip(part.users, part.items.tolist(), strict=True)},
    }


class Naive:
    """The same by loops, over plain dictionaries."""

    def __init__(self, prepared: PreparedGraph, lists: dict[int, list[int]]) -> None:
        train = split_pairs(prepared, "train")
        nodes = np.arange(prepared.ranges.num_nodes)
        self.degree = {int(n): 0 for n in nodes} | Counter(train.ravel().tolist())
        self.users, self.items = (nodes[prepared.ranges.is_of_type(nodes, kind)].tolist() for kind in (USER, ITEM))
        self.lists = {user: [item for item in items if item >= 0] for user, items in lists.items()}
        self.truth: dict[int, set[int]] = {}
        for user, item in split_pairs(prepared, "test").tolist():
            self.truth.setdefault(user, set()).add(item)

    def user_slice(self, user: int) -> str:
        """By the share of active users with a smaller degree."""
        active = [self.degree[u] for u in self.users if self.degree[u]]
        if not self.degree[user]:
            return "cold"
        return f"q{1 + int(4 * sum(d < self.degree[user] for d in active) / len(active))}"

    def item_slice(self, item: int) -> str:
        """By the share of interactions with more popular items."""
        if not self.degree[item]:
            return "cold"
        above = sum(self.degree[i] for i in self.items if self.degree[i] > self.degree[item])
        return ("head", "mid", "tail")[int(3 * above / sum(self.degree[i] for i in self.items))]

    def metrics(self, user: int, k: int) -> dict[str, float]:
        best, truth = self.lists[user][:k], self.truth[user]
        at = [place for place, item in enumerate(best, start=1) if item in truth]
        ideal = sum(1 / math.log2(j + 1) for j in range(1, min(k, len(truth)) + 1))
        return {
            f"recall@{k}": len(at) / len(truth),
            f"precision@{k}": len(at) / k,
            f"ndcg@{k}": sum(1 / math.log2(j + 1) for j in at) / ideal,
            f"mrr@{k}": 1 / at[0] if at else 0.0,
            f"hit_rate@{k}": float(bool(at)),
        }


@pytest.fixture(params=["synthetic", "holed"])
def prepared(request: pytest.FixtureRequest) -> PreparedGraph:
    return request.getfixturevalue(request.param)


def test_user_slices_are_means_over_their_users(prepared: PreparedGraph) -> None:
    found = slices_and_lists(prepared.folder)
    naive, slices = Naive(prepared, found["lists"]), found["slices"]["users"]
    assert list(slices) == ["cold", "q1", "q2", "q3", "q4"]
    for name, values in slices.items():
        members = [user for user in naive.users if naive.user_slice(user) == name]
        degrees = [naive.degree[user] for user in members]
        judged = [user for user in members if user in naive.truth]
        assert (values["num_nodes"], values["num_users"]) == (len(members), len(judged))
        assert (values["min_degree"], values["max_degree"]) == (min(degrees, default=0), max(degrees, default=0))
        rows = [naive.metrics(user, KS[0]) | naive.metrics(user, KS[1]) for user in judged]
        for metric in metric_names(KS):
            expected = np.mean([row[metric] for row in rows]) if rows else 0.0
            assert values[metric] == pytest.approx(expected), (name, metric)


def test_item_slices_are_recall_of_their_relevant_items(prepared: PreparedGraph) -> None:
    found = slices_and_lists(prepared.folder)
    naive, slices = Naive(prepared, found["lists"]), found["slices"]["items"]
    assert list(slices) == ["cold", "head", "mid", "tail"]
    for name, values in slices.items():
        members = {item for item in naive.items if naive.item_slice(item) == name}
        truth = {user: items & members for user, items in naive.truth.items() if items & members}
        assert (values["num_nodes"], values["num_users"]) == (len(members), len(truth))
        for k in KS:
            recalls = [len(items & set(naive.lists[user][:k])) / len(items) for user, items in truth.items()]
            assert values[f"recall@{k}"] == pytest.approx(np.mean(recalls) if recalls else 0.0), (name, k)


def test_the_data_have_slices_to_speak_of(synthetic: PreparedGraph, holed: PreparedGraph) -> None:
    large, small = (slices_and_lists(data.folder)["slices"] for data in (synthetic, holed))
    assert all(large["users"][f"q{n}"]["num_users"] > 9 for n in (1, 2, 3))
    assert all(large["items"][name]["num_users"] > 9 for name in ("head", "mid", "tail"))
    assert small["items"]["cold"]["num_users"] > 0


def test_beyond_accuracy_is_what_loops_count(prepared: PreparedGraph) -> None:
    found = slices_and_lists(prepared.folder)
    naive, rows = Naive(prepared, found["lists"]), found["rows"].astype(np.float64)
    for k in KS:
        lists = [items[:k] for items in naive.lists.values()]
        novelty = [np.mean([-math.log2(max(naive.degree[i], 1) / len(naive.users)) for i in items]) for items in lists]
        unlike = [
            [1 - rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]) for a, b in pairs]
            for pairs in (list(itertools.combinations(items, 2)) for items in lists)
        ]
        assert {name: found["beyond"][f"{name}@{k}"] for name in ("coverage", "novelty", "diversity")} == pytest.approx(
            {
                "coverage": len(set(itertools.chain(*lists))) / len(naive.items),
                "novelty": np.mean(novelty),
                "diversity": np.mean([np.mean(values) if values else 0.0 for values in unlike]),
            }
        )


@pytest.mark.parametrize(("world_size", "access"), [(1, "exchange"), (2, "auto"), (4, "exchange")])
def test_the_ranks_have_the_bits_of_one(prepared: PreparedGraph, ranks: Ranks, world_size: int, access: str) -> None:
    alone = slices_and_lists(prepared.folder)
    for parted in ranks.run(world_size, slices_and_lists, prepared.folder, access):
        assert parted["slices"] == alone["slices"]
        assert parted["beyond"] == alone["beyond"]


def test_a_rank_without_nodes_takes_part(ranks: Ranks, empty_part: PreparedGraph) -> None:
    alone = slices_and_lists(empty_part.folder)
    for parted in ranks.run(4, slices_and_lists, empty_part.folder, timeout_s=5):
        assert (parted["slices"], parted["beyond"]) == (alone["slices"], alone["beyond"])


def test_lists_with_missing_items_count_what_they_have(tmp_path: Path) -> None:
    """Two equal rows, an opposite one and none: pairs have the cosines 1, -1 and -1."""
    worker = join_workers(torch.device("cpu"), 1, 30)
    rows = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    items = np.array([[1, 2, 3, -1], [0, 1, -1, -1], [-1, -1, -1, -1]])
    found = beyond.list_diversity(items, rows, Ownership(np.array([0, 4]), 0), worker.rows)
    np.testing.assert_allclose(found, [[0, 0, 4 / 3, 4 / 3], [0, 1, 1, 1], [0, 0, 0, 0]])
