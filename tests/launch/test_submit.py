"""`dist-gat submit` against a real head with token authentication, all of it on loopback."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ray_head import Head, free_ports

from dist_gat.api import prepare
from dist_gat.config.files import load_config
from dist_gat.data.synthetic import write_synthetic


def write_recipe(folder: Path) -> None:
    write_synthetic(folder / "raw", 100, 60, 4, 8, 0.1, seed=5)
    recipe = {
        "name": "submitted",
        "data": {"path": "raw", "interactions": "interactions.csv"},
        "parts": {"num_parts": 2, "method": "hash"},
        "sampling": {"fanouts": [4]},
        "negatives": {"num_shared": 16},
        "model": {"embedding_size": 16},
        "train": {"num_epochs": 1, "batch_size": 128},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.ray
def test_a_job_trains_on_loopback_alone_and_needs_the_token(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare(load_config("recipe.yaml"))

    job = head.submit(tmp_path, "launch.timeout_s=60")
    failed = head.submit(tmp_path, "data.prepared=nowhere")
    strangers = [head.submit(tmp_path, RAY_AUTH_MODE="disabled"), head.submit(tmp_path, RAY_AUTH_TOKEN="wrong")]
    addresses = set()
    while job.poll() is None:
        addresses |= head.listening_on()
        time.sleep(0.5)

    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert "best epoch 1" in output
    assert (tmp_path / "runs" / "submitted" / "model").is_dir()
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}

    # a failure in the job is the exit code here, and its error stands in the log
    output, _ = failed.communicate(timeout=60)
    assert failed.returncode == 1
    assert "nowhere/manifest.json: not found" in output

    for stranger in strangers:
        output, _ = stranger.communicate(timeout=60)
        assert stranger.returncode == 1
        assert "does not let us in" in output
        assert "RAY_AUTH_TOKEN_PATH" in output
        assert "Traceback" not in output


def test_errors_before_submitting(tmp_path: Path) -> None:
    write_recipe(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "dist_gat.cli.main", "submit", "recipe.yaml", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return result.returncode, result.stderr

    (port,) = free_ports(1)
    code, error = run("--address", f"http://127.0.0.1:{port}")
    assert (code, "no Ray job server answers there" in error, "Traceback" in error) == (1, True, False)
    code, error = run("train.num_epoch=2")
    assert (code, "did you mean train.num_epochs?" in error) == (1, True)
    code, error = run("--address", "127.0.0.1:8265")
    assert (code, "expected a URL" in error) == (2, True)
    code, error = run("--folder", "relative")
    assert (code, "expected an absolute path" in error) == (2, True)
