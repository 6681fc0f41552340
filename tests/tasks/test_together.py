"""Several tasks over one encoder, end to end: the same numbers on any number of ranks, chains, weights, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import labels
import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import expit, logit

from dist_gat import api
from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import Config
from dist_gat.nn.experts import Experts
from dist_gat.nn.pair_head import chained

RATING = {"kind": "rating"}
VIEW = {"kind": "click", "label": "view", "calibration": "none"}
BUY = {"kind": "click", "label": "buy", "calibration": "none"}
PLAYS = {"kind": "count", "label": "plays", "exposure": "days"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    labels.write_labels(folder)
    api.prepare(recipe(folder, rating=RATING))
    return folder


def recipe(
    folder: Path, run: str = "run", settings: dict[str, Any] | None = None, num_epochs: int = 2, num_workers: int = 1,
    access: str = "auto", **tasks: Any,
) -> Config:  # fmt: skip
    task = {"kind": "together", "tasks": tasks, **(settings or {})}
    return labels.recipe(
        folder, task, run, train={"num_epochs": num_epochs}, launch={"num_workers": num_workers},
        sampling={"access": access},
    )  # fmt: skip


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "given": ({}, {"rating": RATING, "plays": PLAYS, "rank": {"kind": "ranking"}}),
    "experts": ({"heads": "experts", "num_experts": 3, "weighting": "uncertainty"}, {"buy": BUY, "rating": RATING}),
    "chain": ({"heads": "chain", "weighting": "gradient_norm"}, {"view": VIEW, "buy": BUY}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_train_and_measure_as_one_does(folder: Path, kind: str) -> None:
    settings, tasks = KINDS[kind]
    alone = api.train(recipe(folder, f"{kind}-1", settings, **tasks))
    for workers, access in ((2, "auto"), (4, "exchange")):
        other = api.train(recipe(folder, f"{kind}-{workers}", settings, 2, workers, access, **tasks))
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-8)
    assert {name.partition("/")[0] for name in alone["valid"]} == set(tasks)


def test_a_chain_is_learned_and_predicted_as_a_product(folder: Path) -> None:
    settings, tasks = KINDS["chain"]
    config = recipe(folder, "learned", settings, num_epochs=12, **tasks)
    trained = api.train(config)
    assert trained["valid"]["buy/auc"] > 0.6
    found = api.evaluate(config)
    assert set(found["tasks"]) == {"view", "buy"}
    assert found["test"]["buy/auc"] == found["tasks"]["buy"]["test"]["auc"]
    table = pl.read_csv(folder / "labels.csv")
    predicted = api.predict(config.run_folder, table)
    view, buy = (predicted[f"prediction_{name}"].to_numpy() for name in ("view", "buy"))
    assert (buy < view).all(), "a purchase needs a view"
    assert np.corrcoef(buy, table["buy"])[0, 1] > 0.3
    assert abs(view.mean() - table["view"].mean()) < 0.05
    best = api.recommend(config.run_folder, [3], 3)
    again = api.predict(config.run_folder, best.select("user_id", "item_id"))
    assert best["score"].to_list() == pytest.approx(again["prediction_view"].to_list(), rel=1e-5)


def test_one_task_together_is_the_task_alone(folder: Path) -> None:
    together = api.train(recipe(folder, "one-together", rating=RATING))
    alone = api.train(labels.recipe(folder, RATING, "one-alone", train={"num_epochs": 2}))
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-12)
    assert together["valid"]["rating/rmse"] == pytest.approx(alone["valid"]["rmse"], rel=1e-12)


def test_exposure_scales_counts(folder: Path) -> None:
    config = recipe(folder, "exposed", num_epochs=10, plays=PLAYS, rating=RATING)
    api.train(config)
    pairs = pl.DataFrame({"user_id": [1, 1], "item_id": [2, 2], "days": [3, 6]})
    once, twice = api.predict(config.run_folder, pairs)["prediction_plays"]
    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_compare_shows_each_task_alone(folder: Path) -> None:
    config = recipe(folder, "compared", view=VIEW, buy=BUY)
    result = api.compare(config, ["only-buy", "recipe"])
    metrics = {name: set(row["metrics"]) for name, row in result["models"].items()}
    assert {"buy/auc", "buy/log_loss"} <= metrics["only-buy"]
    assert not any(name.startswith("view/") for name in metrics["only-buy"])
    assert metrics["only-buy"] < metrics["recipe"]


@pytest.mark.parametrize(
    ("settings", "tasks", "words"),
    [
        ({"heads": "chain"}, {"view": VIEW, "rating": RATING}, "heads=chain is for clicks with labels, which rating"),
        ({"heads": "experts"}, {"rank": {"kind": "ranking"}}, "ranking goes with heads=alone"),
        ({}, {"a b": RATING}, "can't name a task"),
        ({}, {}, "at least 1"),
        ({}, {"prediction": RATING}, "can't name a task"),
    ],
)
def test_tasks_that_do_not_go_together(
    folder: Path, settings: dict[str, Any], tasks: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(folder, "wrong", settings, **tasks)


def test_chained_values_are_the_log_odds_of_a_product() -> None:
    values = torch.linspace(-6, 6, 9, dtype=torch.float64)
    found = chained([values, values.flip(0), values])
    expected = logit(expit(values.numpy()) ** 2 * expit(values.flip(0).numpy()))
    torch.testing.assert_close(found, torch.as_tensor(expected))
    assert torch.isfinite(chained([torch.tensor([90.0]), torch.tensor([90.0])])).all()


def test_experts_are_a_mixture_that_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    experts, rows, gate = Experts(4, 3), torch.randn(5, 4), torch.randn(5, 3)
    torch.testing.assert_close(experts(rows, gate), rows)
    torch.nn.init.normal_(experts.outer_KRR)
    each = torch.stack(
        [torch.nn.functional.gelu(rows @ experts.inner_KRR[k]) @ experts.outer_KRR[k] for k in range(3)], dim=1
    )
    torch.testing.assert_close(experts(rows, gate), rows + (gate.softmax(1)[:, :, None] * each).sum(1))


def test_the_report_has_each_task(folder: Path) -> None:
    settings, tasks = KINDS["given"]
    config = recipe(folder, "reported", settings, **tasks)
    api.train(config)
    api.evaluate(config)
    page = api.report(config.run_folder).read_text()
    assert "rating: RMSE" in page
    for name in tasks:
        assert f"For whom is it bad?<bdi> ({name})" in page
    assert "Where is it wrong?<bdi> (plays)" in page


def test_a_run_stopped_in_mid_epoch_goes_on_with_the_same_bits(folder: Path) -> None:
    settings, tasks = KINDS["experts"]
    whole = api.train(recipe(folder, "whole", settings, **tasks))
    config = recipe(folder, "halves", settings, **tasks)
    first = api.train(config.model_copy(update={"train": config.train.model_copy(update={"max_steps": 5})}))
    assert first["steps"] == 5
    second = api.train(recipe(folder, "halves", settings, num_workers=2, **tasks))
    assert second["resumed_from"] == 5
    assert second["losses"][:5] == first["losses"] == whole["losses"][:5]
    assert second["losses"] == pytest.approx(whole["losses"], rel=1e-9)
    again = api.train(recipe(folder, "thirds", settings, num_epochs=1, **tasks))
    assert again["losses"] == whole["losses"][: again["steps"]]
    more = api.train(recipe(folder, "thirds", settings, **tasks))
    assert more["losses"] == whole["losses"], "to the bit on as many workers"
    assert more["valid"] == whole["valid"]
