"""`fit`: chosen on validation, trained once more on everything that is not for the test, tested once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import INTERACTS
from recipes import small_recipe as recipe

from dist_gat import api
from dist_gat.config.sections import BlendConfig, Config, EvaluateConfig
from dist_gat.data.synthetic import write_synthetic
from dist_gat.graph.part import open_prepared
from dist_gat.workflows.final_recipe import final_recipe


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fit")
    write_synthetic(folder / "raw", 150, 120, 4, 12, 0.1, seed=1)
    config = recipe(folder)
    train = config.train.model_copy(update={"num_epochs": 3, "schedule": "cosine"})
    blend = config.blend.model_copy(update={"spectral_rank": 8, "linear": True, "linear_deflation": 4})
    config = config.model_copy(update={"train": train, "blend": blend})
    return config, api.fit(config)


def pairs(folder: str | Path, split: str) -> set[tuple[str, str]]:
    """External (user, item) IDs of a split."""
    prepared = open_prepared(folder)
    edges = np.concatenate([part.pairs(INTERACTS, split) for part in prepared.parts])
    names = [dict(zip(ids["node_id"], ids["external_id"], strict=True)) for ids in map(prepared.ids, ("user", "item"))]
    return {(names[0][user], names[1][item]) for user, item in edges.tolist()}


def test_the_last_training_has_the_validation_pairs_and_no_test_pair(fitted: tuple[Config, dict[str, Any]]) -> None:
    config, result = fitted
    first, last = config.data.prepared, config.run_folder / "final" / "prepared"
    assert pairs(last, "train") == pairs(first, "train") | pairs(first, "valid")
    assert pairs(last, "test") == pairs(first, "test")
    assert not pairs(last, "valid")
    assert pairs(first, "valid")
    assert not pairs(last, "train") & pairs(last, "test")
    assert result["final"]["epochs"] == result["chosen"]["best_epoch"]
    assert result["final"]["blend"] == result["chosen"]["blend"] != {"spectral": 0.0, "linear": 0.0}
    assert result["chosen"]["blended"] >= result["chosen"]["valid"][config.train.metric]
    assert result["final"]["blended"] is None


def test_the_last_training_has_the_half_life_that_validation_chose() -> None:
    chosen = {"best_epoch": 2, "blend": {"linear": 1.5}, "half_life": None, "calibration": {}}
    for given, last in (([None, 5.0], [None]), ([7.0, None], [None]), (7.0, 7.0), (None, None)):
        blend = BlendConfig(linear=True, half_life=given)
        config = recipe(Path()).model_copy(update={"blend": blend})
        found = final_recipe(config, chosen).blend
        assert (found.half_life, found.linear_weight) == (last, 1.5)
        assert found.reads_weights == blend.reads_weights


def test_the_last_training_has_no_baseline_that_validation_would_choose_for() -> None:
    chosen = {"best_epoch": 2, "blend": {}, "half_life": None, "calibration": {}}
    names = ["popularity", "itemknn-recent", "markov"]
    for half_life, left in (([None, 5.0], ["popularity", "markov"]), (5.0, names)):
        config = recipe(Path())
        evaluation = {"baselines": names, "baseline": {"half_life": half_life}}
        config = config.model_copy(update={"evaluate": EvaluateConfig.model_validate(evaluation)})
        assert list(final_recipe(config, chosen).evaluate.baselines) == left


def test_recommendations_are_the_ranking_that_was_tested(fitted: tuple[Config, dict[str, Any]]) -> None:
    config, result = fitted
    truth = pairs(config.run_folder / "final" / "prepared", "test")
    users = sorted({user for user, _ in truth})
    table = api.recommend(result["run"], users, k=20)
    recalls = []
    for user in users:
        relevant = {item for other, item in truth if other == user}
        found = set(table.filter(pl.col("user_id") == user)["item_id"])
        recalls.append(len(found & relevant) / len(relevant))
    assert 0 < result["metrics"]["recall@20"] == pytest.approx(np.mean(recalls), abs=1e-9)


def test_fit_again_gives_the_same_without_a_step(fitted: tuple[Config, dict[str, Any]]) -> None:
    config, result = fitted
    again = api.fit(config)
    assert again["metrics"] == result["metrics"]
    assert again["final"]["resumed_from"] == result["final"]["steps"]


def test_epochs_stop_on_the_schedule_of_all(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "raw", 150, 120, 4, 12, 0.1, seed=1)
    config = recipe(tmp_path)
    api.prepare(config)
    train = {"num_epochs": 3, "schedule": "cosine", "patience": 0}
    losses = []
    for name, changes in (("whole", {}), ("stopped", {"stop_epoch": 2})):
        other = config.model_copy(
            update={"run": str(tmp_path / name), "train": config.train.model_copy(update=train | changes)}
        )
        losses.append(api.train(other)["losses"])
    whole, stopped = losses
    assert len(stopped) == len(whole) * 2 // 3
    assert stopped == whole[: len(stopped)]
