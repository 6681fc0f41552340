"""Ratings, clicks and counts trained, evaluated and predicted end to end; the same numbers on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import labels
import numpy as np
import polars as pl
import pytest
from data_sets import split_table

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.baselines.pair_baselines import evaluate_pair_baseline
from dist_gat.config.sections import Config
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import open_prepared
from dist_gat.tasks.build_task import build_task
from dist_gat.tasks.pair_task import PairTask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    labels.write_labels(folder)
    api.prepare(recipe(folder, "rating"))
    return folder


def recipe(folder: Path, kind: str, run: str = "run", **sections: dict[str, Any]) -> Config:
    task = {"kind": kind} | ({} if kind == "rating" else {"label": kind})
    return labels.recipe(folder, sections.pop("task", task), f"{run}-{kind}", **sections)


def told(config: Config) -> dict[str, Any]:
    """What `evaluate` says of a trained run, as it is in the run folder."""
    api.evaluate(config)
    text = (config.run_folder / "evaluation.json").read_text()
    result = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return {name: value for name, value in result.items() if name != "seconds"}


BETTER_THAN = {"rating": ("rmse", 0.9), "click": ("auc", 0.6), "count": ("deviance", 1.5)}


@pytest.mark.parametrize("kind", ["rating", "click", "count"])
def test_a_label_is_learned_and_predicted_from_the_saved_model(folder: Path, kind: str) -> None:
    config = recipe(folder, kind)
    trained = api.train(config)
    metric, bar = BETTER_THAN[kind]
    history = [validation[metric] for validation in trained["history"]]
    better = max if kind == "click" else min
    assert trained["valid"][metric] == better(history), "the direction is the task's"
    found = api.evaluate(config)
    assert (found["test"][metric] > bar) == (kind == "click"), found["test"]
    check_slices_and_details(found, kind)
    table = pl.read_csv(folder / "labels.csv").with_columns(weight=pl.col(kind))
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
    parts, name = range(4), "weight" if kind == "rating" else kind
    pairs = np.concatenate([np.load(f"{prepared}/parts/{p:04d}/interacts/test.npy") for p in parts])
    given_labels = np.concatenate([np.load(f"{prepared}/parts/{p:04d}/interacts/test_{name}.npy") for p in parts])
    given = dict(zip(zip(table["user_id"], table["item_id"], strict=True), table["weight"], strict=True))
    test = pl.DataFrame(
        {k + "_id": [name_of[k][n] for n in pairs[:, c].tolist()] for c, k in enumerate(("user", "item"))}
    )
    assert [given[pair] for pair in test.rows()] == given_labels.tolist(), "labels stand beside their pairs"
    own = api.predict(config.run_folder, test)["prediction"].to_numpy()
    if kind == "rating":
        assert found["test"]["rmse"] == pytest.approx(float(np.sqrt(np.mean((own - given_labels) ** 2))), rel=1e-6)


def check_slices_and_details(found: dict[str, Any], kind: str) -> None:
    """They add up to the metrics of the whole split."""
    for split in ("valid", "test"):
        num_pairs, metrics = found[split]["num_pairs"], found["spread"][split]
        assert all(0 < metrics[name] < found[split][name] for name in metrics if name != "calibration_error")
        for slices in found["slices"][split].values():
            assert sum(row["num_pairs"] for row in slices.values()) == num_pairs
            name = {"rating": "mae", "click": "log_loss", "count": "mae"}[kind]
            whole = sum(row["num_pairs"] * row[name] for row in slices.values() if row["num_pairs"])
            assert whole / num_pairs == pytest.approx(found[split][name])
        details = found["details"][split]
        for picture in details["histograms"].values():
            assert sum(picture["counts"]) + picture["below"] + picture["above"] == picture["num"]
    if kind == "click":
        valid, test = found["details"]["valid"], found["details"]["test"]
        assert (test["threshold"], test["threshold_from"]) == (valid["threshold"], "valid")
        assert sum(map(sum, test["confusion"])) == found["test"]["num_pairs"]
    else:
        assert sum(row["num_pairs"] for row in details["by_prediction"]) == num_pairs


@pytest.mark.parametrize("kind", ["rating", "click", "count"])
def test_ranks_train_and_measure_as_one_does(folder: Path, kind: str) -> None:
    short = {"num_epochs": 2}
    alone = api.train(recipe(folder, kind, "one", train=short, launch={"num_workers": 1}))
    for workers, access in ((2, "auto"), (4, "exchange")):
        config = recipe(
            folder, kind, f"w{workers}", train=short, launch={"num_workers": workers}, sampling={"access": access}
        )
        other = api.train(config)
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-9)
        assert other["valid"] == pytest.approx(alone["valid"], rel=1e-9)
    one = recipe(folder, kind, "one", launch={"num_workers": 1})
    first = told(one)
    assert first["details"].keys() == first["spread"].keys() == first["slices"].keys() == {"valid", "test"}
    for workers, access in ((2, "auto"), (4, "exchange")):
        launch = one.launch.model_copy(update={"num_workers": workers})
        sampling = one.sampling.model_copy(update={"access": access})
        # the same model on other workers
        assert told(one.model_copy(update={"launch": launch, "sampling": sampling})) == first


@pytest.mark.parametrize("kind", ["rating", "click", "count"])
def test_a_sample_has_the_pairs_of_its_users(folder: Path, kind: str) -> None:
    config = recipe(folder, kind, f"sampled-{kind}", train={"num_epochs": 1}, launch={"num_workers": 1})
    api.train(config)
    some = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"num_users": 15})})
    found, whole = told(some), told(config)
    prepared = open_prepared(config.data.prepared)
    task = build_task(some, prepared)
    assert isinstance(task, PairTask)
    for split in ("valid", "test"):
        measured, counts = task.measured(range(4), split, Channel("alone"))
        assert counts["num_users"] == 15 < counts["num_all_users"]
        users = np.concatenate([pairs.pairs[:, 0] for pairs in measured])
        assert len(np.unique(users)) == 15
        everything = np.concatenate([part.pairs(task.relation, split)[:, 0] for part in prepared.parts])
        assert len(users) == np.isin(everything, users).sum() == found[split]["num_pairs"] < whole[split]["num_pairs"]
        assert {name: found[split][name] for name in counts} == counts
        baseline = evaluate_pair_baseline("mean", task, prepared, split)
        assert {name: baseline[name] for name in found[split]}.keys() == found[split].keys()
        assert baseline["num_pairs"] == found[split]["num_pairs"]
    everyone = some.model_copy(update={"evaluate": config.evaluate.model_copy(update={"num_users": 10**6})})
    assert told(everyone) == whole


def test_what_carries_no_message_is_predicted_all_the_same(folder: Path) -> None:
    config = recipe(folder, "click", "quiet")
    data = config.data.model_copy(update={"min_message_weight": 3.0, "prepared": str(folder / "prepared-quiet")})
    config = config.model_copy(update={"data": data})
    report = api.prepare(config)
    parts = [folder / "prepared-quiet" / "parts" / f"{part:04d}" for part in range(4)]
    edges = sum(len(np.load(part / "indices.npy")) for part in parts)
    weights = np.concatenate([np.load(part / "interacts" / "train_weight.npy") for part in parts])
    assert edges == 2 * (weights >= 3).sum() < 2 * len(weights)
    assert sum(report["split_counts"]["interacts"]["train"]) == len(weights)


def test_labels_that_do_not_fit_the_task_stop_before_training(folder: Path) -> None:
    config = recipe(folder, "rating", "wrong", task={"kind": "click"}, train={"num_epochs": 1})
    with pytest.raises(
        DataError,
        match=r"the train row of user \d+, item \d+ has weight \d; expected 0 or 1; correct the row, or name another",
    ):
        api.train(config)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"metric": "ndcg@20"}}, "train.metric=ndcg@20 is not one of rmse, mae"),
        ({"blend": {"linear": True}}, "blend ranks items"),
        ({"evaluate": {"baselines": ["ease"]}}, "evaluate.baselines rank items"),
        ({"model": {"decoder": {"popularity": True}}}, "model.decoder.popularity is for ranking"),
        ({"task": {"kind": "ratings"}}, "task"),
    ],
)
def test_settings_of_ranking_are_refused(folder: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(folder, "rating", **sections)


def test_a_pair_of_somebody_unknown_is_named(folder: Path) -> None:
    config = recipe(folder, "rating", "unknown", train={"num_epochs": 1})
    api.train(config)
    with pytest.raises(DataError, match="1 of the rows 1 to 2 have a user that training never saw, e.g. 999 in row 2"):
        api.predict(config.run_folder, pl.DataFrame({"user_id": [1, 999], "item_id": [1, 1]}))
    with pytest.raises(DataError, match="no column item_id"):
        api.predict(config.run_folder, pl.DataFrame({"user_id": [1]}))


def test_baselines_and_relatives_stand_beside_it(folder: Path) -> None:
    config = recipe(folder, "rating", "compared", train={"num_epochs": 2})
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
    calibration = result["chosen"]["calibration"]["prediction"]
    assert calibration["kind"] == "temperature"
    assert result["final"]["calibration"] == {"prediction": calibration}
    assert result["split"] == "test"
    assert 0.5 < result["metrics"]["auc"] <= 1


def test_a_wrong_label_of_a_held_out_row_is_named_too(folder: Path, tmp_path: Path) -> None:
    table = pl.read_csv(folder / "labels.csv")
    config = recipe(folder, "click", "held-out", train={"num_epochs": 1})
    held_out = split_table(table.select("user_id", "item_id"), config.data.split, config.seed)["test"].row(0)
    is_it = (pl.col("user_id") == held_out[0]) & (pl.col("item_id") == held_out[1])
    table.with_columns(click=pl.when(is_it).then(2).otherwise("click")).write_csv(tmp_path / "labels.csv")
    data = config.data.model_copy(update={"path": str(tmp_path), "prepared": str(tmp_path / "prepared")})
    config = config.model_copy(update={"data": data})
    api.prepare(config)
    with pytest.raises(DataError, match=f"the test row of user {held_out[0]}, item {held_out[1]} has click 2"):
        api.train(config)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"kind": "click", "label": "none"}, "have no none, which the task asks for; they have weight, click"),
        ({"kind": "count", "label": "plays", "exposure": "view"}, "has view 0; expected an exposure above 0"),
        ({"kind": "rating", "loss": "ordinal", "label": "noise"}, "more than 100 different labels"),
        ({"kind": "rating", "label": "same"}, "all labels same are 1, so there is nothing to predict"),
        ({"kind": "rating", "label": "same", "loss": "ordinal"}, "all labels same are 1, so there is nothing to"),
    ],
)
def test_labels_that_a_task_can_not_use_are_told(
    folder: Path, tmp_path: Path, task: dict[str, Any], words: str
) -> None:
    table = pl.read_csv(folder / "labels.csv").with_columns(noise=pl.int_range(pl.len()), same=1)
    table.write_csv(tmp_path / "labels.csv")
    config = labels.recipe(folder, task, "unusable")
    columns = config.data.columns.model_copy(
        update={"labels": {**config.data.columns.labels, "noise": "noise", "same": "same"}}
    )
    update = {"path": str(tmp_path), "prepared": str(tmp_path / "prepared"), "columns": columns}
    config = config.model_copy(update={"data": config.data.model_copy(update=update)})
    api.prepare(config)
    with pytest.raises(DataError, match=words):
        api.train(config)


@pytest.mark.parametrize(("until", "min_gain", "epochs"), [("loss", 100.0, 3), ("metric", 100.0, 3), ("loss", 0.0, 5)])
def test_training_ends_when_the_loss_or_the_metric_has_converged(
    folder: Path, until: str, min_gain: float, epochs: int
) -> None:
    train = {"num_epochs": 5, "patience": 2, "until": until, "min_gain": min_gain}
    trained = api.train(recipe(folder, "rating", f"until-{until}-{min_gain}", train=train))
    assert trained["epochs"] == epochs
