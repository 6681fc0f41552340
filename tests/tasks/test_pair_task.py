"""Ratings, clicks and counts trained, evaluated and predicted end to end; the same numbers on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import recipes

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.sections import Config

NUM_USERS, NUM_ITEMS = 60, 40


def write_labels(folder: Path) -> None:
    """Labels of users and items that lie on a line: who is near likes it."""
    rng = np.random.default_rng(1)
    user, item = rng.uniform(-1, 1, NUM_USERS), rng.uniform(-1, 1, NUM_ITEMS)
    pairs = np.argwhere(rng.random((NUM_USERS, NUM_ITEMS)) < 0.5)
    like = 2 * user[pairs[:, 0]] * item[pairs[:, 1]] + 0.5 * item[pairs[:, 1]]
    labels = {
        "rating": np.clip(np.round(3 + like), 1, 5),
        "click": (rng.random(len(pairs)) < 1 / (1 + np.exp(-3 * like))).astype(float),
        "count": rng.poisson(np.exp(like)),
    }
    for kind, values in labels.items():
        table = pl.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1], "weight": values})
        table.write_csv(folder / f"{kind}.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder)
    return folder


def recipe(folder: Path, kind: str, run: str = "run", **sections: dict[str, Any]) -> Config:
    base = {
        "data": {
            "path": str(folder), "interactions": f"{kind}.csv", "prepared": str(folder / f"prepared-{kind}"),
            "split": {"valid_ratio": 0.1, "test_ratio": 0.2},
        },
        "parts": {"num_parts": 4, "method": "hash"},
        "sampling": {"fanouts": [5]},
        "task": {"kind": kind},
        "model": {"embedding_size": 8, "scoring": "degree", "residual": False},
        "train": {"num_epochs": 12, "batch_size": 100, "learning_rate": 0.03, "precision": "float64", "patience": 0},
    }  # fmt: skip
    return recipes.recipe(folder, f"{run}-{kind}", base, **sections)


BETTER_THAN = {"rating": ("rmse", 0.9), "click": ("auc", 0.6), "count": ("deviance", 1.5)}


@pytest.mark.parametrize("kind", ["rating", "click", "count"])
def test_a_label_is_learned_and_predicted_from_the_saved_model(folder: Path, kind: str) -> None:
    config = recipe(folder, kind)
    api.prepare(config)
    trained = api.train(config)
    metric, bar = BETTER_THAN[kind]
    history = [validation[metric] for validation in trained["history"]]
    better = max if kind == "click" else min
    assert trained["valid"][metric] == better(history), "the direction is the task's"
    found = api.evaluate(config)
    assert (found["test"][metric] > bar) == (kind == "click"), found["test"]
    table = pl.read_csv(folder / f"{kind}.csv")
    predicted = api.predict(config.run_folder, table)
    assert predicted.drop("prediction").equals(table)
    whole = np.corrcoef(predicted["prediction"], predicted["weight"])[0, 1]
    assert whole > 0.4
    table.select("item_id", "user_id").write_parquet(folder / "pairs.parquet")
    again = api.predict(config.run_folder / "model", folder / "pairs.parquet")
    assert again["prediction"].to_list() == predicted["prediction"].to_list()
    best = api.recommend(config.run_folder, [3], 5)
    assert best["score"].to_list() == pytest.approx(
        api.predict(config.run_folder, best.select("user_id", "item_id"))["prediction"].to_list(), rel=1e-5
    )
    # what evaluation measured is what predictions of the test pairs give
    prepared = config.data.prepared
    ids = {k: pl.read_parquet(f"{prepared}/ids/{k}.parquet") for k in ("user", "item")}
    name_of = {k: dict(zip(v["node_id"], v["external_id"], strict=True)) for k, v in ids.items()}
    parts = range(4)
    pairs = np.concatenate([np.load(f"{prepared}/parts/{p:04d}/interacts/test.npy") for p in parts])
    labels = np.concatenate([np.load(f"{prepared}/parts/{p:04d}/interacts/test_label.npy") for p in parts])
    given = dict(zip(zip(table["user_id"], table["item_id"], strict=True), table["weight"], strict=True))
    test = pl.DataFrame(
        {k + "_id": [name_of[k][n] for n in pairs[:, c].tolist()] for c, k in enumerate(("user", "item"))}
    )
    assert [given[pair] for pair in test.rows()] == labels.tolist(), "labels stand beside their pairs"
    own = api.predict(config.run_folder, test)["prediction"].to_numpy()
    if kind == "rating":
        assert found["test"]["rmse"] == pytest.approx(float(np.sqrt(np.mean((own - labels) ** 2))), rel=1e-6)


@pytest.mark.parametrize("kind", ["rating", "click", "count"])
def test_ranks_train_and_measure_as_one_does(folder: Path, kind: str) -> None:
    short = {"num_epochs": 2}
    api.prepare(recipe(folder, kind))
    alone = api.train(recipe(folder, kind, "one", train=short, launch={"num_workers": 1}))
    for workers, access in ((2, "auto"), (4, "exchange")):
        config = recipe(
            folder, kind, f"w{workers}", train=short, launch={"num_workers": workers}, sampling={"access": access}
        )
        other = api.train(config)
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-9)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-9)


def test_what_carries_no_message_is_predicted_all_the_same(folder: Path) -> None:
    config = recipe(folder, "click", "quiet")
    data = config.data.model_copy(update={"min_message_weight": 1.0, "prepared": str(folder / "prepared-quiet")})
    config = config.model_copy(update={"data": data})
    report = api.prepare(config)
    edges = sum(len(np.load(folder / "prepared-quiet" / "parts" / f"{part:04d}" / "indices.npy")) for part in range(4))
    labels = np.concatenate(
        [
            np.load(folder / "prepared-quiet" / "parts" / f"{part:04d}" / "interacts" / "train_label.npy")
            for part in range(4)
        ]
    )
    assert edges == 2 * labels.sum() < 2 * len(labels)
    assert sum(report["split_counts"]["interacts"]["train"]) == len(labels)


def test_labels_that_do_not_fit_the_task_stop_before_training(folder: Path) -> None:
    config = recipe(folder, "rating", "wrong", task={"kind": "click"}, train={"num_epochs": 1})
    api.prepare(config)
    with pytest.raises(DataError, match="labels of clicks are 0 and 1, and these go from 1 to 5"):
        api.train(config)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"metric": "ndcg@20"}}, "train.metric=ndcg@20 is not one of rmse, mae"),
        ({"blend": {"linear": True}}, "blend ranks items"),
        ({"model": {"decoder": {"popularity": True}}}, "model.decoder.popularity is for ranking"),
        ({"task": {"kind": "ratings"}}, "task"),
    ],
)
def test_settings_of_ranking_are_refused(folder: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(folder, "rating", **sections)


def test_a_pair_of_somebody_unknown_is_named(folder: Path) -> None:
    config = recipe(folder, "rating", "unknown", train={"num_epochs": 1})
    api.prepare(config)
    api.train(config)
    with pytest.raises(DataError, match="1 of the rows 1 to 2 have a user that training never saw, e.g. 999 in row 2"):
        api.predict(config.run_folder, pl.DataFrame({"user_id": [1, 999], "item_id": [1, 1]}))
    with pytest.raises(DataError, match="no column item_id"):
        api.predict(config.run_folder, pl.DataFrame({"user_id": [1]}))


def test_baselines_and_relatives_stand_beside_it(folder: Path) -> None:
    config = recipe(folder, "rating", "compared", train={"num_epochs": 2})
    api.prepare(config)
    result = api.compare(config, ["mean", "biases", "mf"])
    assert {name: bool(row["metrics"]) for name, row in result["models"].items()} == dict.fromkeys(
        ("mean", "biases", "mf"), True
    )
    assert result["models"]["biases"]["metrics"]["rmse"] < result["models"]["mean"]["metrics"]["rmse"]
    with pytest.raises(ConfigError, match="ease: expected some of mean, user_mean"):
        api.compare(config, ["ease"])


def test_fit_hands_on_the_calibration_of_validation(folder: Path) -> None:
    config = recipe(folder, "click", "fitted", train={"num_epochs": 3})
    data = config.data.model_copy(update={"prepared": str(folder / "prepared-fitted")})
    result = api.fit(config.model_copy(update={"data": data}))
    calibration = result["chosen"]["calibration"]
    assert calibration["kind"] == "temperature"
    assert result["final"]["calibration"] == calibration
    assert result["split"] == "test"
    assert 0.5 < result["metrics"]["auc"] <= 1
