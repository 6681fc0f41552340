"""Baselines that go by time, against loops over histories; validation chooses the half-life; data without times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_ease
import test_knn
from helpers import INTERACTS, prepare

from dist_gat.base.errors import ConfigError
from dist_gat.baselines.baseline import RECENT, TIMED, evaluate_baseline, fit_recent
from dist_gat.baselines.histories import Histories
from dist_gat.baselines.markov import fit_markov
from dist_gat.config.sections import BaselineConfig, EvaluateConfig
from dist_gat.config.task_sections import RankingTask
from dist_gat.exchange.worker import lone_worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.workflows.compared_models import choose_models, compared_models

NUM_USERS, NUM_ITEMS = 12, 7
TINY = BaselineConfig(itemknn_neighbors=3, shrinkage=0.7, ease_l2=1.5, markov_smoothing=2.0)
ORACLES = {"itemknn-recent": test_knn.TestItemKNN, "ease-recent": test_ease.TestEASE}


def tiny_histories(seed: int = 3) -> Histories:
    """Times are few, so that many are equal; the last user and the last item have no interaction."""
    rng = np.random.default_rng(seed)
    met = rng.random((NUM_USERS - 1, NUM_ITEMS - 1)) < 0.6
    users, items = np.nonzero(met)
    order = rng.permutation(len(users))
    return Histories(users[order], items[order], rng.integers(0, 4, len(users)), NUM_USERS, NUM_ITEMS)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """60 users who walk along 20 items in a circle, a step or two at a time; the last two steps are held out."""
    folder, rng = tmp_path_factory.mktemp("timed"), np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp"]
    for user in range(60):
        item = int(rng.integers(20))
        for step in range(8):
            rows.append(f"{user},{item},{10**9 + step}")
            item = (item + int(rng.integers(1, 3))) % 20
    (folder / "walks.csv").write_text("\n".join(rows) + "\n")
    return prepare(folder, {"interactions": "walks.csv", "split": {"method": "leave_last_out"}}, 3, "hash")


@pytest.mark.parametrize("name", RECENT)
@pytest.mark.parametrize("half_life", [None, 1.5])
def test_recent_histories_are_what_the_weights_say(name: str, half_life: float | None) -> None:
    histories = tiny_histories()
    scores = fit_recent(name, histories, TINY)(half_life)(slice(0, NUM_USERS), slice(0, NUM_ITEMS))
    dense, weights = np.zeros((2, NUM_USERS, NUM_ITEMS))
    triples = list(zip(histories.users.tolist(), histories.items.tolist(), histories.when(name).tolist(), strict=True))
    for user, item, time in triples:
        newer = sum(other == user and later > time for other, _, later in triples)
        dense[user, item], weights[user, item] = 1, 1 if half_life is None else 0.5 ** (newer / half_life)
    # scores of users with one item each are the item × item weights
    plain = ORACLES[name]().expected(dense, TINY)
    if half_life is None:
        np.testing.assert_allclose(scores, plain, rtol=1e-5, atol=1e-6)
    else:
        between = np.linalg.lstsq(dense, plain, rcond=None)[0]
        np.testing.assert_allclose(scores, weights @ between, rtol=1e-4, atol=1e-5)
        assert not np.allclose(scores, plain, rtol=0.1)


def test_the_markov_chain_counts_what_came_next() -> None:
    histories = tiny_histories()
    moments: dict[int, dict[int, list[int]]] = {}
    counts, share = np.zeros((NUM_ITEMS, NUM_ITEMS)), np.zeros(NUM_ITEMS)
    for user, item, time in zip(histories.users, histories.items, histories.when("markov"), strict=True):
        moments.setdefault(int(user), {}).setdefault(int(time), []).append(int(item))
        share[item] += 1 / len(histories.users)
    for history in moments.values():
        times = sorted(history)
        for before, after in zip(times, times[1:], strict=False):
            for last in history[before]:
                for following in history[after]:
                    counts[last, following] += 1 / len(history[before])
    chances = (counts + TINY.markov_smoothing * share) / (counts.sum(axis=1, keepdims=True) + TINY.markov_smoothing)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    expected = np.tile(share, (NUM_USERS, 1))
    for user, history in moments.items():
        expected[user] = np.mean([chances[last] for last in history[max(history)]], axis=0)
    assert len(moments) == NUM_USERS - 1
    scores = fit_markov(histories, TINY)(slice(0, NUM_USERS), slice(0, NUM_ITEMS))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-7)


def found(name: str, prepared: PreparedGraph, split: str = "test", **settings: Any) -> dict[str, Any]:
    config = EvaluateConfig(ks=[1, 3], baseline=BaselineConfig(ease_l2=5.0, **settings))
    return evaluate_baseline(name, prepared, INTERACTS, split, config, "ndcg@3", 0, lone_worker())


@pytest.mark.parametrize("name", RECENT)
def test_validation_chooses_the_half_life(timed: PreparedGraph, name: str) -> None:
    half_lives = [None, 4.0, 0.5]
    valid = [found(name, timed, "valid", half_life=one)["metrics"]["ndcg@3"] for one in half_lives]
    assert max(valid) > valid[0] + 0.05, "the last step says where the next one goes"
    best = half_lives[int(np.argmax(valid))]
    chosen = found(name, timed, half_life=half_lives)
    assert chosen["note"] == f"a half-life of {best:g} newer interactions, chosen on validation"
    given = found(name, timed, half_life=best)
    assert (given["metrics"], given["note"]) == (chosen["metrics"], f"a half-life of {best:g} newer interactions")
    plain = found(name.removesuffix("-recent"), timed)
    assert found(name, timed, half_life=None) == {**plain, "note": "all of a history counts alike"}
    assert chosen["metrics"]["ndcg@3"] > plain["metrics"]["ndcg@3"]


def test_the_markov_chain_finds_the_next_step(timed: PreparedGraph) -> None:
    recall = {name: found(name, timed, "valid")["metrics"]["recall@3"] for name in ("markov", "ease")}
    assert recall["markov"] > 0.8 > recall["ease"]


def test_what_goes_by_time_needs_times(holed: PreparedGraph) -> None:
    for name in TIMED:
        with pytest.raises(ConfigError, match=f"{name} goes by the times of interactions.*data.columns.datetime"):
            found(name, holed)


def test_a_list_of_half_lives_needs_validation(tmp_path: Path) -> None:
    rows = "user_id,item_id,timestamp\n0,0,1000000001\n0,1,1000000002\n1,1,1000000003\n1,0,1000000004\n"
    (tmp_path / "rows.csv").write_text(rows)
    split = {"method": "random", "valid_ratio": 0.0, "test_ratio": 0.4}
    prepared = prepare(tmp_path, {"interactions": "rows.csv", "split": split}, 1, "hash", seed=1)
    with pytest.raises(ConfigError, match=r"ease-recent chooses among .*half_life=.* on validation pairs"):
        found("ease-recent", prepared)


def test_compare_leaves_them_out_where_there_are_no_times() -> None:
    known = compared_models(RankingTask())
    assert set(TIMED) < set(known)
    assert choose_models(None, RankingTask(), has_times=False) == [name for name in known if name not in TIMED]
    assert choose_models(["markov"], RankingTask(), has_times=False) == ["markov"], "it was asked for, and has a note"
