"""The same training function under Ray Train."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.hostile import rewrite_manifest

from dist_gat.api import evaluate, prepare, train
from dist_gat.config_file import parse_config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.errors import ClusterError


@pytest.mark.ray
def test_ray_gives_the_losses_of_the_local_launcher_and_passes_errors_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_synthetic(tmp_path / "raw", 200, 120, 4, 12, 0.1, seed=5)
    tree = {
        "name": "ray",
        "run": str(tmp_path / "local"),
        "data": {
            "path": str(tmp_path / "raw"),
            "interactions": "interactions.csv",
            "prepared": str(tmp_path / "prepared"),
        },
        "parts": {"num_parts": 4},
        "sampling": {"fanouts": [4, 4]},
        "negatives": {"num_shared": 32},
        "model": {"embedding_size": 8, "scoring": "dot"},
        "train": {"num_epochs": 2, "batch_size": 256},
        "launch": {"launcher": "local", "num_workers": 2, "timeout_s": 60},
    }
    config = parse_config(tree)
    prepare(config)
    local = train(config)
    launch = config.launch.model_copy(update={"launcher": "ray"})
    on_ray = config.model_copy(update={"run": str(tmp_path / "ray"), "launch": launch})
    capfd.readouterr()
    result = train(on_ray)
    shown = capfd.readouterr()
    assert result["losses"] == pytest.approx(local["losses"], rel=1e-6)
    assert result["valid"] == pytest.approx(local["valid"])
    assert shown.out == ""
    assert "Warning" not in shown.err
    # the manifest is true of it, so that the workers are the first to see the damage; their error comes in words
    weights = tmp_path / "ray" / "model" / "dense.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    rewrite_manifest(tmp_path / "ray" / "model")
    with pytest.raises(ClusterError, match=r"dense.safetensors: expected a safetensors file"):
        evaluate(on_ray)
