"""Data, runs and models in S3, over HTTP: the same bits as in folders, on hosts that share nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import Ranks, same_on_all
from object_store import ObjectStore, running_store
from recipes import private_recipe, recipe
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.remote_run import claim_run
from dist_gat.base.running_beside import running_beside
from dist_gat.cli.main import app
from dist_gat.config.files import dump_config, parse_config
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.channel import open_channel
from dist_gat.exchange.stop_requests import Requests
from dist_gat.exchange.worker import join_workers
from dist_gat.graph.own_parts import open_own_parts
from dist_gat.jobs.evaluation import evaluate_worker
from dist_gat.jobs.training import train_worker
from dist_gat.kernels.compile_cache import cache_root
from dist_gat.serve.fetched_run import copy_run, follow_run
from dist_gat.train.run_log import read_curves

PREPARED, RUN = "s3://shop/prepared", "s3://shop/runs/a"
USERS = ["u1", "u7", "u20"]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with running_store() as store:
        yield store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `raw`, and `prepared`, `run` and its evaluation in folders."""
    folder = tmp_path_factory.mktemp("folders")
    write_synthetic(folder / "raw", 120, 60, 4, 12, 0.1, seed=1)
    config = recipe(folder)
    api.prepare(config)
    api.train(config)
    api.evaluate(config)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path, store: ObjectStore) -> dict[str, Any]:
    """What `train` returned in S3."""
    config = there(folder, folder / "cache")
    api.prepare(config)
    return api.train(config)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> Path:
    """An empty one, which verbs without a recipe find too; and nothing was asked of the store yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache_root()))  # compiled kernels stay where they are
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store.requests.clear()
    return tmp_path / "dist_gat"


def there(folder: Path, cache: Path, prepared: str = PREPARED, run: str = RUN, **sections: dict[str, Any]) -> Config:
    sections["launch"] = {"cache": str(cache)} | sections.get("launch", {})
    sections["data"] = {"prepared": prepared} | sections.get("data", {})
    return recipe(folder, **sections).model_copy(update={"run": run})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepared_data_is_the_same_there(trained: dict[str, Any], folder: Path, store: ObjectStore) -> None:
    assert store.files(PREPARED) == files_of(folder / "prepared")


def test_training_and_its_model_are_the_same(trained: dict[str, Any], folder: Path, store: ObjectStore) -> None:
    again = api.train(recipe(folder))
    assert trained["losses"] == again["losses"]
    assert trained["valid"] == again["valid"]
    found, expected = store.files(f"{RUN}/model"), files_of(folder / "run" / "model")
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} <= {"config.yaml", "manifest.json"}
    names = store.files(RUN)
    assert {"config.yaml", "progress.jsonl", "lock"} <= names.keys()
    assert any(name.startswith("tensorboard/events") for name in names)
    assert b'"done"' in names["progress.jsonl"], "the last event too"


def test_an_empty_host_goes_on_from_the_store(
    trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path
) -> None:  # fmt: skip
    run = "s3://shop/runs/stopped"
    first = api.train(there(folder, cache / "one", run=run, train={"stop_epoch": 1}))
    assert first["steps"] < trained["steps"]
    second = api.train(there(folder, cache / "two", run=run))
    assert second["resumed_from"] == first["steps"]
    assert second["losses"] == trained["losses"]
    model = store.files(f"{RUN}/model")
    again = store.files(f"{run}/model")
    assert {name for name in model if again[name] != model[name]} <= {"config.yaml", "manifest.json"}
    events = [json.loads(line) for line in store.files(run)["progress.jsonl"].splitlines()]
    assert [event["step"] for event in events if event["event"] == "start"] == [0, first["steps"]]


def test_evaluation_is_the_same_and_stays_there(
    trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path
) -> None:  # fmt: skip
    found = api.evaluate(there(folder, cache))
    expected = json.loads((folder / "run" / "evaluation.json").read_text())
    assert {key: found[key] for key in ("valid", "test")} == {key: expected[key] for key in ("valid", "test")}
    assert json.loads(store.files(RUN)["evaluation.json"])["test"] == expected["test"]
    assert any(name.startswith("tensorboard/evaluate/") for name in store.files(RUN))


def test_verbs_read_a_run_or_its_model(
    trained: dict[str, Any], folder: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    expected = api.recommend(folder / "run", USERS)
    for source in (RUN, f"{RUN}/model", there(folder, cache)):
        assert api.recommend(source, USERS).equals(expected)
    assert api.open(RUN).recommend(USERS).equals(expected)
    assert api.explain(RUN, "u1") == api.explain(folder / "run", "u1")
    assert api.inspect(PREPARED)["fingerprint"] == api.inspect(folder / "prepared")["fingerprint"]
    api.export(RUN, tmp_path / "exported")
    assert api.report(RUN, tmp_path / "page.html").stat().st_size > 1000
    with pytest.raises(ConfigError, match="html=FILE"):
        api.report(RUN)
    shown = CliRunner().invoke(app, ["recommend", RUN, "--user", "u1", "--json"])
    assert shown.exit_code == 0, shown.output
    assert expected["item_id"][0] in capfd.readouterr().out


def test_a_server_follows_the_run(trained: dict[str, Any], store: ObjectStore, cache: Path) -> None:
    copy = copy_run(RUN)
    manifest = copy / "model" / "manifest.json"
    manifest.write_text("of the model before")
    until = time.monotonic() + 30
    with running_beside(partial(follow_run, RUN, copy, 0.05)):
        while manifest.read_bytes() != store.files(f"{RUN}/model")["manifest.json"]:
            assert time.monotonic() < until, "the model of the run takes its place"
            time.sleep(0.05)
    assert api.recommend(copy, USERS).equals(api.recommend(RUN, USERS))


def test_a_model_is_fetched_once_and_checked(
    trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path
) -> None:  # fmt: skip
    api.recommend(RUN, USERS)
    store.requests.clear()
    api.recommend(RUN, USERS)
    assert set(store.read(f"{RUN}/model")) == {"manifest.json"}
    name = f"{RUN}/model/parts/0001.safetensors"
    good = store.files(f"{RUN}/model")["parts/0001.safetensors"]
    shutil.rmtree(cache)
    store.put(name, good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with pytest.raises(StorageError, match=f"{name}: expected SHA-256 .*found .*dist-gat train"):
            api.recommend(RUN, USERS)
    finally:
        store.put(name, good)
    api.recommend(RUN, USERS)


def test_another_run_begins_with_its_model(trained: dict[str, Any], folder: Path, cache: Path) -> None:
    found = api.train(recipe(folder, "further", train={"init_from": RUN, "max_steps": 1}))
    assert "ID rows of user: 120 of 120" in found["init_from"][0]


def test_a_second_prepare_says_what_is_there(folder: Path, store: ObjectStore, cache: Path) -> None:
    url, said = "s3://shop/again", []
    config = there(folder, cache, prepared=url)
    api.prepare(config, said.append)
    assert said[0] == f"{url} is empty: a new data set"
    said.clear()
    store.refuses = lambda request: request[0] == "PUT" and request[1].endswith("manifest.json")
    try:
        with pytest.raises(StorageError, match=f"{url}/manifest.json: can't be written.*credentials"):
            api.prepare(config, said.append)
    finally:
        store.refuses = lambda request: False
    assert said[0] == f"{url} has the data set small, which is replaced at the end"
    with pytest.raises(StorageError, match=f"{url}/manifest.json: not found, and uploading.json .*dist-gat prepare"):
        api.train(there(folder, cache / "fresh", prepared=url, run="s3://shop/runs/none"))
    said.clear()
    api.prepare(config, said.append)
    assert said[0].startswith(f"{url} has 22 of 22 files of an upload that was cut")
    assert store.files(url) == files_of(folder / "prepared")
    store.put("s3://shop/mine/notes.txt", b"of somebody")
    with pytest.raises(ConfigError, match="s3://shop/mine/notes.txt was not written by `dist-gat prepare`"):
        api.prepare(there(folder, cache, prepared="s3://shop/mine"))


def test_a_store_that_lets_nobody_in(trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path) -> None:
    store.refuses = lambda request: True
    try:
        for call in (partial(api.train, there(folder, cache)), partial(api.recommend, RUN, USERS)):
            with pytest.raises(StorageError, match="s3://shop/.*can't be read.*credentials that this host has"):
                call()
    finally:
        store.refuses = lambda request: False


def test_what_needs_a_folder_is_refused(trained: dict[str, Any], folder: Path, cache: Path) -> None:
    config = there(folder, cache)
    with pytest.raises(ConfigError, match="`forget` works on folders"):
        api.forget(RUN, "u1")
    with pytest.raises(ConfigError, match="`dist-gat compare` keeps its runs in a folder"):
        api.compare(config, ["popularity"])
    with pytest.raises(StorageError, match="s3://shop/runs/nothing/config.yaml: not found"):
        api.recommend("s3://shop/runs/nothing", USERS)


def test_a_private_run_wants_a_folder(tmp_path: Path) -> None:
    tree = private_recipe(tmp_path).model_dump(mode="json") | {"run": RUN}
    with pytest.raises(ConfigError, match="privacy keeps a secret and a ledger in the run folder"):
        parse_config(tree)


def on_own_host(config: Config, caches: str) -> Config:
    """A rank's, whose host has a cache of its own."""
    launch = config.launch.model_copy(update={"cache": f"{caches}/{dist.get_rank()}"})
    return config.model_copy(update={"launch": launch})


def train_and_evaluate(config: Config, caches: str) -> dict[str, Any]:
    config = on_own_host(config, caches)
    worker = join_workers(torch.device("cpu"), 1, 60, Requests(), False)
    losses = train_worker(config, worker)["losses"]
    return {"losses": losses, "test": evaluate_worker(config, worker)["test"]}


@pytest.mark.slow
def test_hosts_share_nothing_but_the_store(
    trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path, ranks: Ranks
) -> None:  # fmt: skip
    """Two ranks with caches of their own: each object of a part is read by its owner alone, and the bits are those of
    ranks that read one folder."""
    two = {"launch": {"num_workers": 2}}
    expected = api.train(recipe(folder, "two", **two))
    evaluated = api.evaluate(recipe(folder, "two", **two))
    store.requests.clear()
    config = there(folder, cache, run="s3://shop/runs/hosts", **two)
    found = same_on_all(ranks.run(2, train_and_evaluate, config, str(cache), timeout_s=120))
    assert found["losses"] == expected["losses"]
    assert found["test"] == evaluated["test"]
    read = [name for name in store.read(PREPARED) if name.startswith("parts/")]
    assert sorted(read) == sorted(name for name in store.files(PREPARED) if name.startswith("parts/")), "each once"
    for rank in range(2):
        (kept,) = (cache / str(rank) / "fetched").glob(f"*/*/parts/{rank:04d}")
        assert [path.name for path in kept.parent.iterdir()] == [f"{rank:04d}"]
    assert api.recommend("s3://shop/runs/hosts", USERS).equals(api.recommend(folder / "two", USERS))


def read_own(config: Config, names: list[str], caches: str) -> str:
    rank = dist.get_rank()
    config = on_own_host(config, caches)
    config = config.model_copy(update={"data": config.data.model_copy(update={"prepared": names[rank]})})
    try:
        return open_own_parts(config, open_channel("control", torch.device("cpu"), 30)).fingerprint
    except StorageError as err:
        return str(err)


def test_ranks_agree_on_what_they_read(
    trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path, ranks: Ranks
) -> None:  # fmt: skip
    config, other = there(folder, cache, launch={"num_workers": 2}), "s3://shop/other"
    api.prepare(there(folder, cache, prepared=other, parts={"method": "range"}))
    read = partial(ranks.run, 2, read_own, config)
    for told in read([PREPARED, "s3://shop/nowhere"], str(cache)):
        assert "rank 1: s3://shop/nowhere/manifest.json: not found" in told
    for told in read([PREPARED, other], str(cache)):
        assert "the ranks read different data sets (rank 0:" in told
    assert len(same_on_all(read([PREPARED, PREPARED], str(cache)))) == 64


@pytest.mark.slow
def test_a_killed_run_goes_on_elsewhere(
    trained: dict[str, Any], folder: Path, store: ObjectStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """SIGKILL to all processes of a run of two workers in mid-training; an empty host loses nothing."""
    run, long = "s3://shop/runs/killed", {"num_epochs": 12, "patience": 0, "log_every": 1}
    expected = api.train(recipe(folder, "long", train=long, launch={"num_workers": 2}))
    config = there(folder, cache / "one", run=run, train=long, launch={"num_workers": 2})
    (cache / "recipe.yaml").parent.mkdir(parents=True, exist_ok=True)
    (cache / "recipe.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "dist_gat.cli.main", "train", str(cache / "recipe.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 200
    while not any(name.endswith("/manifest.json") for name in store.names(f"{run}/checkpoints")):
        assert time.monotonic() < until, "a checkpoint comes"
        assert process.poll() is None, "it is killed before its end"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert b'"ended": false' in store.files(run)["lock"]
    monkeypatch.setattr("dist_gat.workflows.remote_run_folder.claim_run", partial(claim_run, beat_s=0.5))
    found = api.train(there(folder, cache / "two", run=run, train=long, launch={"num_workers": 2}))
    assert 0 < found["resumed_from"] < expected["steps"]
    assert found["losses"] == expected["losses"]
    assert api.recommend(run, USERS).equals(api.recommend(folder / "long", USERS))
    points = read_curves(copy_run(run))["train/loss"]
    assert [step for step, _ in points] == list(range(1, expected["steps"] + 1)), "TensorBoard has every step once"
