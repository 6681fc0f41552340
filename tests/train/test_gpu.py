"""Training on a GPU against the same training on the CPU; where there is no GPU all of this is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recipes
import torch
from recipes import COSINE

from dist_gat.api import evaluate, prepare, recommend, train
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.jobs.training import train_worker
from dist_gat.launcher.local import run_processes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STEPS = 30
# of the losses; bfloat16 has 8 bits, and 30 steps of Adam carry them on
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 5e-2}


BASE: dict[str, Any] = {
    "sampling": {"fanouts": [4, 3]},
    "negatives": {"num_shared": 30, "num_per_seed": 2, "in_batch": True, "distribution": "popularity"},
    "model": {"scoring": "dot", "num_heads": 2, "decoder": COSINE | {"popularity": True}},
    "loss": {"kind": "softmax", "l2": 1e-4},
    "train": {"num_epochs": 3, "max_steps": STEPS, "batch_size": 200, "clip_norm": 0.5},
    "blend": {"spectral_rank": 8, "linear": True, "linear_deflation": 4},
    "launch": {"threads_per_worker": 2, "use_gpu": True},
}


def recipe(folder: Path, run: str, **sections: dict[str, Any]) -> Config:
    return recipes.recipe(folder, run, BASE, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    write_synthetic(folder / "raw", 240, 160, 4, 15, 0.1, seed=3)
    prepare(recipe(folder, "none"))
    return folder


@pytest.mark.parametrize("scoring", ["dot", "additive", "degree", "additive_v2"])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_losses_are_those_of_the_cpu(folder: Path, scoring: str, precision: str) -> None:
    changes = {"model": {"scoring": scoring}, "train": {"precision": precision}}
    on_gpu = train(recipe(folder, f"gpu-{scoring}-{precision}", **changes))
    exact = "float64" if precision == "float64" else "float32"
    changes["train"] = {"precision": exact}
    on_cpu = train(recipe(folder, f"cpu-{scoring}-{precision}", **changes, launch={"use_gpu": False}))
    assert len(on_gpu["losses"]) == STEPS
    assert on_gpu["losses"] == pytest.approx(on_cpu["losses"], rel=TOLERANCE[precision])


def test_a_process_group_of_nccl_gives_the_losses_of_one_process(folder: Path) -> None:
    """One rank: NCCL takes no two ranks on one GPU. Its collectives run all the same."""
    alone = train(recipe(folder, "alone"))
    grouped = run_processes(train_worker, recipe(folder, "grouped"))
    assert grouped["losses"] == pytest.approx(alone["losses"], rel=1e-6)


def test_a_run_goes_on_from_its_checkpoint_and_is_used_without_the_gpu(folder: Path) -> None:
    whole = train(recipe(folder, "whole"))
    train(recipe(folder, "halves", train={"stop_epoch": 1}))
    resumed = train(recipe(folder, "halves"))
    assert resumed["losses"] == pytest.approx(whole["losses"], rel=1e-6)
    on_gpu = evaluate(recipe(folder, "whole"))
    on_cpu = evaluate(recipe(folder, "whole", launch={"use_gpu": False}))
    assert on_gpu["test"] == pytest.approx(on_cpu["test"], abs=0.02)
    table = recommend(folder / "whole", ["u3"], k=5)
    assert table["user_id"].to_list() == ["u3"] * 5
