"""One worker in this process: checkpoints, early stopping, TensorBoard, the saved model, features, failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import recipes
import torch
from helpers import INTERACTS
from recipes import COSINE, TITLES
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dist_gat.api import evaluate, prepare, recommend, train
from dist_gat.base.errors import StorageError
from dist_gat.checkpoints.checkpoint_store import FolderCheckpoints
from dist_gat.config.files import load_config
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic

BASE: dict[str, Any] = {
    "data": TITLES,
    "model": {"scoring": "dot", "decoder": COSINE},
    "train": {"num_epochs": 6, "metric": "recall@20"},
    "evaluate": {"ks": [5, 20], "baselines": ["popularity", "itemknn"]},
}


def recipe(folder: Path, **sections: dict[str, Any]) -> Config:
    return recipes.recipe(folder, base=BASE, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_synthetic(folder / "raw", 200, 160, 4, 15, 0.1, seed=1)
    prepare(recipe(folder))
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return train(recipe(folder))


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_training_learns_the_planted_communities(folder: Path, result: dict[str, Any]) -> None:
    # the 40 items of the user's own community, less those seen, come in random order at best: 20 of about 28
    metrics = evaluate(recipe(folder))
    assert metrics["test"]["recall@20"] > 0.45
    assert metrics["test"]["recall@20"] > 2 * metrics["baselines"]["popularity"]["test"]["recall@20"]
    assert metrics["valid"] == pytest.approx(result["valid"])
    events = EventAccumulator(str(folder / "run" / "tensorboard" / "evaluate"))
    events.Reload()
    for tag, value in {
        "test/recall@20": metrics["test"]["recall@20"],
        "slices/test/users/q2/ndcg@5": metrics["slices"]["test"]["users"]["q2"]["ndcg@5"],
        "slices/valid/beyond_accuracy/novelty@20": metrics["slices"]["valid"]["beyond_accuracy"]["novelty@20"],
    }.items():
        assert events.Scalars(tag)[-1].value == pytest.approx(value)


def test_recommendations_come_from_the_users_community_and_are_new(folder: Path, result: dict[str, Any]) -> None:
    table = recommend(folder / "run", ["u3", "u8"], k=10)
    assert table.columns == ["user_id", "item_id", "score", "rank", "title"]
    assert table["user_id"].to_list() == ["u3"] * 10 + ["u8"] * 10
    assert table["rank"].to_list() == [*range(1, 11)] * 2
    inside = [int(item[1:]) % 4 == int(user[1:]) % 4 for user, item in table.select("user_id", "item_id").rows()]
    assert sum(inside) >= 18
    rows = pl.read_csv(folder / "raw" / "interactions.csv")
    seen_in_test = evaluate_split(folder, "test")
    for user, item in table.select("user_id", "item_id").rows():
        met = rows.filter((pl.col("user_id") == user) & (pl.col("item_id") == item))
        assert met.is_empty() or (user, item) in seen_in_test


def evaluate_split(folder: Path, split: str) -> set[tuple[str, str]]:
    """The external pairs of a split, from the prepared parts."""
    from dist_gat.graph.part import open_prepared

    prepared = open_prepared(folder / "prepared")
    users, items = (dict(prepared.ids(kind).select("node_id", "external_id").rows()) for kind in ("user", "item"))
    return {(users[u], items[i]) for part in prepared.parts for u, i in part.pairs(INTERACTS, split).tolist()}


def test_tensorboard_has_every_promised_curve_by_global_step(folder: Path, result: dict[str, Any]) -> None:
    curves = points(folder)
    promised = {
        "train/loss", "train/loss_softmax", "train/learning_rate", "train/gradient_norm", "speed/seeds_per_s",
        "speed/edges_per_s", "speed/exchanged_bytes_per_step", "attention/entropy_layer_1",
        "attention/entropy_layer_2", "valid/recall@20", "valid/ndcg@5", "share/sample", "share/exchange",
        "share/gather", "share/compute", "share/stall", "hparam/recall@20",
    }  # fmt: skip
    assert promised <= curves.keys()
    steps = [step for step, _ in curves["train/loss"]]
    assert steps == list(range(10, result["steps"] + 1, 10)) or steps[-1] == result["steps"]
    assert all(0 <= value <= 1 for _, value in curves["attention/entropy_layer_1"])
    assert all(value > 0 for _, value in curves["share/compute"])
    assert [step for step, _ in curves["valid/recall@20"]] == [entry["step"] for entry in result["history"]]


def test_checkpoints_hold_weights_and_optimiser_rows_by_part(folder: Path, result: dict[str, Any]) -> None:
    steps = FolderCheckpoints(folder / "run" / "checkpoints").steps()
    assert steps[0] == result["steps"]
    assert len(steps) in (2, 3), "the newest two, and the best"
    for step in reversed(steps):
        checkpoint = FolderCheckpoints(folder / "run" / "checkpoints").folder(step)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        rows = load_file(checkpoint / "parts" / "0000.safetensors")
        assert rows.keys() == {"embedding", "exp_avg", "exp_avg_sq"}
        assert rows["embedding"].shape == rows["exp_avg"].shape
        assert manifest["world_size"] == 1
        assert "0.exp_avg" in load_file(checkpoint / "dense_optimizer.safetensors")
        assert manifest["step"] == step == manifest["row_optimizer_steps"]


def test_the_best_epoch_is_saved_not_the_last(folder: Path, tmp_path: Path) -> None:
    # a rate this high ruins the model after its first good epochs
    config = recipe(folder, train={"num_epochs": 8, "batch_size": 256, "learning_rate": 0.9, "patience": 2,
                                   "metric": "recall@20"})  # fmt: skip
    config = config.model_copy(update={"run": str(tmp_path)})
    result = train(config)
    values = [entry["recall@20"] for entry in result["history"]]
    best = values.index(max(values)) + 1
    assert result["best_epoch"] == best
    assert result["epochs"] == min(best + 2, 8)
    assert evaluate(config)["valid"]["recall@20"] == pytest.approx(max(values))


def test_the_run_folder_repeats_the_run(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    again = load_config(folder / "run" / "config.yaml", [f"run={tmp_path}"])
    assert train(again)["losses"] == result["losses"]


def test_features_alone_can_carry_the_signal(folder: Path, tmp_path: Path) -> None:
    header = "item_id,c0,c1,c2,c3\n"
    rows = "".join(f"i{i}," + ",".join("1" if i % 4 == c else "0" for c in range(4)) + "\n" for i in range(160))
    (folder / "raw" / "features.csv").write_text(header + rows)
    features = {"path": "features.csv", "id_column": "item_id", "columns": ["c0", "c1", "c2", "c3"]}
    data = {"item_features": features, "prepared": str(tmp_path / "prepared")}
    # IDs that hardly start and never learn: what is left is the features and the graph
    config = recipe(
        folder, data=data, model={"init_std": 1e-4}, train={"learning_rate": 1e-9, "dense_learning_rate": 0.05}
    )
    config = config.model_copy(update={"run": str(tmp_path / "run")})
    prepare(config)
    assert train(config)["valid"]["recall@20"] > 0.4


def test_bfloat16_trains_close_to_float32(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    config = recipe(folder, train={"precision": "bfloat16"}).model_copy(update={"run": str(tmp_path)})
    assert train(config)["losses"] == pytest.approx(result["losses"], rel=0.1)


@pytest.mark.parametrize("scoring", ["dot_exp", "additive", "additive_v2", "uniform", "degree"])
def test_every_scoring_trains(folder: Path, tmp_path: Path, scoring: str) -> None:
    config = recipe(folder, model={"scoring": scoring, "num_heads": 2}, train={"num_epochs": 3})
    result = train(config.model_copy(update={"run": str(tmp_path)}))
    assert result["losses"][-1] < result["losses"][0]
    assert torch.tensor(result["losses"]).isfinite().all()


def test_an_unprepared_data_set_is_refused_with_the_command_that_helps(folder: Path, tmp_path: Path) -> None:
    config = recipe(folder, data={"prepared": str(tmp_path / "nowhere")})
    with pytest.raises(StorageError, match="dist-gat prepare"):
        train(config)


def test_a_model_of_another_data_set_is_not_evaluated(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    other = recipe(folder, data={"prepared": str(tmp_path / "prepared")}, parts={"num_parts": 3})
    prepare(other)
    with pytest.raises(StorageError, match="another prepared data set"):
        evaluate(other)
