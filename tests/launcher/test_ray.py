"""The same training function under Ray Train.

In processes of their own: threads of Ray's libraries outlive `ray.shutdown()`, and would be there when this one exits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.hostile import rewrite_manifest
from object_store import running_store
from ray_head import Head
from recipes import recipe

from dist_gat.api import prepare, recommend, train
from dist_gat.base.errors import ClusterError
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.data.synthetic import write_synthetic
from dist_gat.launcher.ray import NO_CLEANER, NO_DATASETS, OWN_CLUSTER, ray_cluster, torch_trainer


def on_ray(
    verb: str, config: Config, path: Path, head: Head | None = None, run: str | None = None
) -> subprocess.CompletedProcess[str]:
    """On a cluster of the process's own, or on that of `head`; into `run`; default: `ray` beside `path`."""
    launch = config.launch.model_copy(update={"launcher": "ray", "address": head.cluster if head else None})
    settings = config.model_copy(update={"run": run or str(path.parent / "ray"), "launch": launch})
    path.write_text(dump_config(settings), encoding="utf-8")
    command = [sys.executable, "-m", "dist_gat.cli.main", verb, str(path), "--json"]
    environment = head.environment if head else None
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.ray
def test_ray_gives_the_losses_of_the_local_launcher_and_passes_errors_on(tmp_path: Path, head: Head) -> None:
    write_synthetic(tmp_path / "raw", 200, 120, 4, 12, 0.1, seed=5)
    config = recipe(
        tmp_path,
        "local",
        parts={"num_parts": 4, "method": "metis"},
        sampling={"fanouts": [4, 4]},
        negatives={"num_shared": 32},
        model={"scoring": "dot"},
        launch={"num_workers": 2},
    )
    prepare(config)
    local = train(config)
    done = on_ray("train", config, tmp_path / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    # one line, so nothing of Ray's beside it
    result = json.loads(done.stdout)
    assert result["losses"] == pytest.approx(local["losses"], rel=1e-6)
    assert result["valid"] == pytest.approx(local["valid"])
    assert "Warning" not in done.stderr
    # the manifest is true of it, so that the workers are the first to see the damage; their error comes in words
    weights = tmp_path / "ray" / "model" / "dense.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    rewrite_manifest(tmp_path / "ray" / "model")
    # at the first failure: Ray would start the workers anew, and they would see the same
    config = config.model_copy(update={"launch": config.launch.model_copy(update={"max_failures": 0})})
    failed = on_ray("evaluate", config, tmp_path / "recipe.yaml", head)
    assert failed.returncode == 1
    assert "dense.safetensors: expected a safetensors file" in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_ray_share_nothing_but_a_store(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "raw", 120, 60, 4, 12, 0.1, seed=1)
    config = recipe(tmp_path, "local", launch={"num_workers": 2, "cache": str(tmp_path / "cache")})
    prepare(config)
    local = train(config)
    with running_store() as store:
        data = config.data.model_copy(update={"prepared": "s3://shop/prepared"})
        there = config.model_copy(update={"data": data, "run": "s3://shop/ray"})
        prepare(there)
        done = on_ray("train", there, tmp_path / "recipe.yaml", run=there.run)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["losses"] == local["losses"]
        assert result["valid"] == local["valid"]
        assert {"config.yaml", "model/manifest.json"} <= set(store.names(there.run))
        assert recommend(there.run, ["u1", "u7"]).equals(recommend(tmp_path / "local", ["u1", "u7"]))


def test_a_ray_that_does_not_start_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(**settings: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because\nof much.")

    monkeypatch.setattr("ray.init", too_slow)
    with (
        pytest.raises(ClusterError, match=r"Ray did not start on this host: The current node .* because; expected"),
        ray_cluster(LaunchConfig(num_workers=1)),
    ):
        pass
    assert not OWN_CLUSTER.keys() & os.environ.keys()


def test_actors_that_a_run_has_no_use_for_are_those_of_this_release_of_ray(tmp_path: Path) -> None:
    """By name, so that a release which calls them otherwise is noticed."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def callbacks(kind: type[TorchTrainer]) -> list[str]:
        trainer = kind(
            print, scaling_config=ScalingConfig(num_workers=2), run_config=RunConfig(storage_path=str(tmp_path))
        )
        return [type(x).__name__ for x in trainer._create_default_callbacks()]

    all_of_ray = callbacks(TorchTrainer)
    assert {NO_DATASETS, NO_CLEANER} <= set(all_of_ray)
    assert callbacks(torch_trainer(is_own=True)) == [x for x in all_of_ray if x not in (NO_DATASETS, NO_CLEANER)]
    assert callbacks(torch_trainer(is_own=False)) == [x for x in all_of_ray if x != NO_DATASETS]


@pytest.mark.ray
def test_prepare_on_a_cluster_writes_the_same_files(tmp_path: Path, head: Head) -> None:
    write_synthetic(tmp_path / "raw", 200, 120, 4, 12, 0.1, seed=5)
    header, *rows = (tmp_path / "raw" / "interactions.csv").read_text().splitlines()
    (tmp_path / "table").mkdir()
    for number in range(3):
        (tmp_path / "table" / f"{number}.csv").write_text("\n".join([header, *rows[number::3]]))
    base = recipe(tmp_path, "local", launch={"num_workers": 2})
    manifests = []
    for name in ("here", "there"):
        data = base.data.model_copy(update={"interactions": str(tmp_path / "table"), "prepared": str(tmp_path / name)})
        config = base.model_copy(update={"data": data})
        if name == "here":
            prepare(config)
        else:
            done = on_ray("prepare", config, tmp_path / "recipe.yaml", head)
            assert done.returncode == 0, done.stderr
            assert "2 files at a time" in done.stderr
        manifests.append(json.loads((tmp_path / name / "manifest.json").read_text())["files"])
    assert manifests[0] == manifests[1]
    (tmp_path / "table" / "3.csv").write_text(f"{header}\nu1,,5\n")
    bad = on_ray("prepare", config, tmp_path / "recipe.yaml", head)
    assert bad.returncode == 1
    assert "1 bad row" in bad.stderr, bad.stderr
    assert "Traceback" not in bad.stderr
