"""`BaselineContract`: what every baseline promises. A test of one baseline inherits it and gives the right answer."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import INTERACTS, ITEM, USER, random_pairs, split_pairs
from scipy.sparse import csr_array

from dist_gat.baselines.baseline import PLAIN, evaluate_baseline, rank_baseline
from dist_gat.baselines.histories import training_histories
from dist_gat.baselines.scorer import Scorer
from dist_gat.config.sections import BaselineConfig, EvaluateConfig
from dist_gat.evaluate.user_sample import users_of
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import PreparedGraph

NUM_USERS, NUM_ITEMS = 14, 9
EVERYONE, EVERYTHING = slice(0, NUM_USERS), slice(0, NUM_ITEMS)
TINY = BaselineConfig(
    userknn_neighbors=3, itemknn_neighbors=2, shrinkage=0.7, als_factors=4, als_regularization=0.3, als_alpha=5.0,
    als_iterations=150, ease_l2=1.5, gfcf_factors=3,
)  # fmt: skip
KS = [1, 5]


def tiny_matrix() -> np.ndarray:
    """[14, 9] with users and items of different degrees; the last user and the last item have no interaction."""
    dense = np.zeros((NUM_USERS, NUM_ITEMS))
    dense[tuple(np.array(random_pairs(NUM_USERS - 1, NUM_ITEMS - 1, 0.3, seed=5)).T)] = 1
    return dense


class BaselineContract:
    """name: of the baseline. expected: its scores of the tiny matrix, computed another way."""

    name: str
    tolerance = 1e-5

    def expected(self, dense_UI: np.ndarray, config: BaselineConfig) -> np.ndarray:
        raise NotImplementedError

    def fit(self, dense_UI: np.ndarray) -> Scorer:
        return PLAIN[self.name](csr_array(dense_UI.astype(np.float32)), TINY)

    def test_scores_are_the_right_ones(self) -> None:
        dense = tiny_matrix()
        scores = self.fit(dense)(EVERYONE, EVERYTHING)
        np.testing.assert_allclose(scores, self.expected(dense, TINY), rtol=self.tolerance, atol=self.tolerance)

    def test_a_block_is_a_piece_of_all_scores(self) -> None:
        score = self.fit(tiny_matrix())
        whole = score(EVERYONE, EVERYTHING)
        assert whole.shape == (NUM_USERS, NUM_ITEMS)
        assert np.isfinite(whole).all()
        for users, items in ((slice(2, 7), slice(3, 4)), (slice(0, 1), slice(3, 4)), (slice(4, 4), slice(0, 9))):
            block = score(users, items)
            assert block.dtype == np.float32
            assert block.shape == whole[users, items].shape
            np.testing.assert_allclose(block, whole[users, items], rtol=1e-6, atol=1e-6)

    def test_two_fits_have_the_same_bits(self) -> None:
        one, other = (self.fit(tiny_matrix())(EVERYONE, EVERYTHING) for _ in range(2))
        assert np.array_equal(one, other)

    def test_ranking_and_metrics_are_a_full_sort_without_known_items(self, synthetic: PreparedGraph) -> None:
        config = EvaluateConfig(ks=KS, user_chunk=9, baseline=TINY)
        users, items = (self.nodes(synthetic, kind) for kind in (USER, ITEM))
        train = split_pairs(synthetic, "train")
        dense = np.zeros((len(users), len(items)))
        dense[np.searchsorted(users, train[:, 0]), np.searchsorted(items, train[:, 1])] = 1
        scores = self.fit(dense)(slice(0, len(users)), slice(0, len(items)))
        met = {tuple(pair) for split in ("train", "valid") for pair in split_pairs(synthetic, split).tolist()}
        truth: dict[int, set[int]] = {}
        for user, item in split_pairs(synthetic, "test").tolist():
            truth.setdefault(user, set()).add(item)
        recall: dict[int, list[float]] = {k: [] for k in KS}
        parts = range(synthetic.ranges.num_parts)
        tested = {part: users_of(synthetic.parts[part].pairs(INTERACTS, "test")) for part in parts}
        fitted = PLAIN[self.name](training_histories(synthetic, INTERACTS).matrix(), TINY)
        for ranking in rank_baseline(fitted, synthetic, INTERACTS, "test", config, tested, lone_worker()):
            for user, found, found_scores in zip(ranking.users, ranking.items, ranking.scores, strict=True):
                row = scores[np.searchsorted(users, user)]
                free = [at for at, item in enumerate(items.tolist()) if (user, item) not in met]
                best = [at for _, _, at in sorted((-row[at], items[at], at) for at in free)][: max(KS)]
                # a product over blocks may round differently: the scores agree, and the order where they differ
                np.testing.assert_allclose(found_scores, row[best], rtol=1e-4, atol=1e-5)
                assert not {(int(user), item) for item in found.tolist()} & met
                order = list(zip((-found_scores).tolist(), found.tolist(), strict=True))
                assert order == sorted(order)
                for k in KS if user in truth else ():
                    recall[k].append(len(set(found[:k].tolist()) & truth[user]) / len(truth[user]))
        worker = lone_worker()
        metrics = evaluate_baseline(self.name, synthetic, INTERACTS, "test", config, "", 0, worker)["metrics"]
        assert metrics["num_users"] == len(truth)
        assert {k: metrics[f"recall@{k}"] for k in KS} == pytest.approx({k: np.mean(recall[k]) for k in KS})

    @staticmethod
    def nodes(prepared: PreparedGraph, kind: str) -> np.ndarray:
        return np.concatenate([prepared.ranges.nodes_of_type(p, kind) for p in range(prepared.ranges.num_parts)])
