"""Runs that begin with another one: what is loaded by external ID, adapters on any number of workers, exact resume."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from faults.runs import state_of
from safetensors.torch import load_file
from small_world import world_recipe as recipe
from small_world import write_world

from dist_gat import api
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import MANIFEST, read_manifest, sha256_of
from dist_gat.checkpoints.weight_files import DENSE
from dist_gat.config.sections import Config
from dist_gat.serve.saved_model import open_model
from dist_gat.train.adapter_files import FORMAT, VERSION
from dist_gat.workflows import run

MODEL = {"scoring": "dot", "embedding_size": 8, "terms": ["relation"]}
POPULAR = {**MODEL, "decoder": {"popularity": True}}
LOW_RANK = {**POPULAR, "adapter": {"rank": 2}}
TRAIN = {"precision": "float64", "patience": 0, "log_every": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared world and a model that was pre-trained on it, in `base`."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw")
    base = recipe(folder, "base", task={"kind": "reconstruct"}, model=MODEL, train=TRAIN)
    api.prepare(base)
    api.train(base)
    return folder


def tuned(
    folder: Path, run: str, model: dict[str, Any] = POPULAR, num_workers: int = 1, access: str = "auto", **train: Any
) -> Config:  # fmt: skip
    train = {**TRAIN, "init_from": str(folder / "base"), **train}
    launch = {"num_workers": num_workers}
    return recipe(folder, run, model=model, train=train, launch=launch, sampling={"access": access})


def id_rows(run: Path) -> dict[str, torch.Tensor]:
    """The ID row of each node, by type and external ID."""
    saved = open_model(run / "model")
    rows = torch.cat([load_file(path)["embedding"] for path in sorted((run / "model" / "parts").iterdir())])
    return {
        f"{kind} {name}": rows[node]
        for kind in saved.ranges.node_types
        for name, node in saved.ids(kind).select("external_id", "node_id").rows()
    }


def test_rows_are_loaded_by_external_id(folder: Path, tmp_path: Path) -> None:
    """Another split, other parts and another order of nodes; some nodes are gone, and some are new."""
    shutil.copytree(folder / "raw", tmp_path / "raw")
    table = pl.read_csv(tmp_path / "raw" / "interactions.csv").filter(pl.col("user_id") != "u3")
    new = pl.DataFrame(
        {"user_id": ["new"] * 3, "item_id": ["i1", "i2", "i3"], "weight": [1] * 3, "timestamp": [10**9] * 3}
    )
    pl.concat([table, new]).write_csv(tmp_path / "raw" / "interactions.csv")
    for workers in (1, 3):
        config = recipe(
            tmp_path, f"run-{workers}", parts={"num_parts": 3, "method": "range"}, model=POPULAR,
            train={**TRAIN, "init_from": str(folder / "base" / "model"), "max_steps": 0},
            launch={"num_workers": workers},
        )  # fmt: skip
        if workers == 1:
            api.prepare(config)
        result = api.train(config)
        there, here = id_rows(folder / "base"), id_rows(config.run_folder)
        both = there.keys() & here.keys()
        assert len(both) > 60
        assert all(torch.equal(there[name], here[name]) for name in both)
        assert "user new" in here.keys() - there.keys()
        lines = "\n".join(result["init_from"])
        assert "own_scores.popularity.slope" in lines
        assert "external IDs are not there" in lines


def test_what_does_not_fit_is_told_and_the_rest_is_loaded(folder: Path) -> None:
    """Another task with a head of its own, more heads, and a size of rows that is another one."""
    rating = recipe(
        folder, "rating", task={"kind": "rating"}, model={**MODEL, "num_heads": 2},
        train={**TRAIN, "init_from": str(folder / "base"), "max_steps": 1},
    )  # fmt: skip
    lines = "\n".join(api.train(rating)["init_from"])
    assert "ID rows of user: 40 of 40" in lines
    for name, there, here, why in (
        ("encoder.layers.0.scoring.key_HII", "[1, 8, 8]", "[2, 8, 8]", "another shape"),
        ("head.pairs.task_prediction.", "", "", "not there"),
    ):
        row = next(line for line in lines.splitlines() if line.startswith(name))
        assert all(cell in row for cell in (there, here, why))
    wide = tuned(folder, "wide", {**POPULAR, "embedding_size": 16}, max_steps=1)
    assert "rows of 8 numbers there, of 16 here" in "\n".join(api.train(wide)["init_from"])


@pytest.mark.parametrize(
    ("model", "train"),
    [(LOW_RANK, {}), (POPULAR, {"freeze": ["embeddings", "encoder.layers.1.*"]})],
    ids=["low", "frozen"],
)
def test_adapters_and_freezing_are_the_same_on_any_number_of_workers(
    folder: Path, model: dict[str, Any], train: dict[str, Any]
) -> None:
    name = "low" if "adapter" in model else "frozen"
    alone = api.train(tuned(folder, f"{name}-1", model, **train))
    for workers, access in ((2, "auto"), (4, "exchange")):
        other = api.train(tuned(folder, f"{name}-{workers}", model, workers, access, **train))
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-8)
        assert other["trained"] == alone["trained"]
    assert alone["trained"]["trained_rows"] == 0
    if name == "frozen":
        dense = [load_file(folder / run / "model" / DENSE) for run in ("base", "frozen-1")]
        same = {key for key in dense[0] if torch.equal(dense[0][key], dense[1][key])}
        assert same == {key for key in dense[0] if key.startswith("encoder.layers.1.")}
        assert all(torch.equal(row, id_rows(folder / "base")[key]) for key, row in id_rows(folder / "frozen-1").items())


@pytest.mark.parametrize("model", [LOW_RANK, {**POPULAR, "adapter": {"kind": "bias"}}], ids=["low_rank", "bias"])
def test_a_run_resumes_bit_for_bit_without_its_base(folder: Path, model: dict[str, Any], tmp_path: Path) -> None:
    name = "resumed-" + model["adapter"].get("kind", "low_rank")
    base = tmp_path / "base"
    shutil.copytree(folder / "base", base)
    whole = tuned(folder, f"{name}-whole", model, init_from=str(base), freeze=["own_scores.*"])
    api.train(whole)
    cut = tuned(folder, f"{name}-cut", model, init_from=str(base), freeze=["own_scores.*"], max_steps=3)
    assert api.train(cut)["init_from"]
    shutil.rmtree(base)
    result = api.train(cut.model_copy(update={"train": whole.train}))
    assert result["resumed_from"] == 3
    assert result["init_from"] is None
    assert state_of(cut) == state_of(whole)
    assert not any("exp_avg" in key for key in state_of(cut) if key.startswith("parts/"))
    bases = [read_manifest(config.run_folder / "adapter", FORMAT, VERSION, "")["base"] for config in (whole, cut)]
    assert bases[0] == bases[1] == sha256_of(folder / "base" / "model" / MANIFEST)


@pytest.mark.parametrize("name", ["head*", "embedding"])
def test_a_pattern_that_matches_nothing_is_refused_before_workers_start(folder: Path, name: str) -> None:
    told: list[str] = []
    with pytest.raises(ConfigError, match=rf"^train.freeze: {re.escape(name)} matches no parameter; .*own_scores"):
        run.train(tuned(folder, "unknown", freeze=["own_scores.*", name]), progress=told.append)
    assert not any("starting" in line for line in told)


def test_what_a_task_trains_of_its_own_may_be_frozen(folder: Path) -> None:
    """The parent that checks the patterns knows the names of a task's head."""
    train = {**TRAIN, "freeze": ["head.*"], "max_steps": 1, "metric": "rmse"}
    config = recipe(folder, "head", task={"kind": "rating"}, model=MODEL, train=train)
    share = api.train(config)["trained"]
    assert 0 < share["trained_dense"] < share["dense"]


def test_id_rows_train_beside_an_adapter_on_any_number_of_workers_and_leave_a_model_alone(folder: Path) -> None:
    model = {**POPULAR, "adapter": {"rank": 2, "rows": "trained"}}
    alone, config = api.train(tuned(folder, "rows-1", model)), tuned(folder, "rows-2", model, 2)
    assert api.train(config)["losses"] == pytest.approx(alone["losses"], rel=1e-8)
    share = alone["trained"]
    assert share["trained_rows"] == share["rows"]
    assert share["trained_dense"] < share["dense"]
    assert not (config.run_folder / "adapter").exists()
    began = api.train(tuned(folder, "began", POPULAR, init_from=str(config.run_folder), max_steps=0))
    assert began["steps"] == 0
    assert not torch.equal(id_rows(folder / "base")["user u1"], id_rows(folder / "began")["user u1"])


def test_an_adapter_alone_makes_the_model_that_it_was_trained_to(folder: Path) -> None:
    trained = tuned(folder, "shipped", LOW_RANK)
    api.train(trained)
    adapter = trained.run_folder / "adapter"
    assert sum(path.stat().st_size for path in adapter.iterdir()) < 10_000
    applied = tuned(folder, "applied", LOW_RANK, adapter_from=str(adapter), max_steps=0)
    assert api.train(applied)["steps"] == 0
    assert api.evaluate(applied)["test"] == pytest.approx(api.evaluate(trained)["test"], rel=1e-12)
    assert api.recommend(applied.run_folder, ["u1"], 5).equals(api.recommend(trained.run_folder, ["u1"], 5))
    assert api.explain(applied.run_folder, user="u1")["fidelity"] is not None
    other = tuned(folder, "other", LOW_RANK, init_from=str(applied.run_folder), adapter_from=str(adapter), max_steps=0)
    with pytest.raises(
        StorageError, match="was trained on the model [0-9a-f]{64}, and train.init_from is [0-9a-f]{64}"
    ):
        api.train(other)


def test_what_can_not_be_begun_with_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such run"):
        api.train(tuned(folder, "none", init_from=str(tmp_path / "none")))
    (tmp_path / "young").mkdir()
    with pytest.raises(ConfigError, match="no saved model yet"):
        api.train(tuned(folder, "young", init_from=str(tmp_path / "young")))
    with pytest.raises(ConfigError, match=r"name its run in train\.init_from"):
        recipe(folder, model=LOW_RANK)
    with pytest.raises(ConfigError, match="which lack .*key_HII"):
        api.train(tuned(folder, "lacking", {**LOW_RANK, "num_heads": 2}))
