"""Rows on a graph of four node types and many relations, with terms of what edges carry, in strict time."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import jobs
from faults.board import row
from faults.rows_runs import TOLERANCE
from faults.runs import checkpoints_of, leftovers, points_of, run_held, shared_folder, state_of
from helpers import parse_sections
from safetensors.torch import load_file
from small_world import world_recipe, write_world

from dist_gat import api
from dist_gat.base.errors import ClusterError
from dist_gat.config.sections import Config

# the bad step is amid the second epoch
NUM_STEPS, STEPS_PER_EPOCH = 24, 12


def world_run(folder: Path, name: str = "run", **sections: dict[str, Any]) -> Config:
    """On 2 local workers, in `folder/name`, on the world that these rows share."""
    world = shared_folder() / "world"
    base = world_recipe(
        world,
        data={"split": {"method": "leave_last_out"}},
        sampling={"time": "strict", "strategy": "recent", "num_streams": 2},
        model={"scoring": "degree_dot", "terms": ["relation", "category", "weight", "age", "rank"]},
        train={"num_epochs": 3, "batch_size": 30, "max_steps": NUM_STEPS, "patience": 0, "log_every": 1},
        checkpoint={"every_steps": 1, "keep": 2},
        launch={"num_workers": 2, "timeout_s": 20},
    )
    config = parse_sections(base.model_dump(mode="json") | {"run": str(folder / name)}, sections)
    if not (world / "prepared").exists():
        write_world(world / "raw")
        api.prepare(config)
    return config


@functools.cache
def undisturbed() -> Config:
    config = world_run(shared_folder(), "undisturbed-world")
    api.train(config)
    return config


def losses_of(config: Config) -> np.ndarray:
    return load_file(checkpoints_of(config).folder(NUM_STEPS) / "losses.safetensors")["losses"].numpy()


@row(
    23, "many relations, strict time: SIGKILL a rank in mid-epoch, resume where all parts are asked for",
    "the bits of the run that read them in place, undisturbed", is_quick=True,
)  # fmt: skip
def kill_among_relations(folder: Path) -> str:
    config = world_run(folder)
    with pytest.raises(ClusterError) as caught:
        run_held(jobs.killed_in_step, config)
    assert "rank 1 failed: its process ended without a word, exit code -9" in str(caught.value), caught.value
    resumed = api.train(world_run(folder, sampling={"access": "exchange"}))["resumed_from"]
    assert STEPS_PER_EPOCH < resumed < jobs.BAD_STEP, resumed
    found, expected = state_of(config, NUM_STEPS), state_of(undisturbed(), NUM_STEPS)
    different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    assert not different, f"not the bits of the undisturbed run: {sorted(different)}"
    assert points_of(config) == list(range(1, NUM_STEPS + 1)), f"TensorBoard has the steps {points_of(config)}"
    assert not leftovers(config), leftovers(config)
    return f"went on from step {resumed}; {len(found)} tensors are the same"


@row(
    24, "many relations, strict time: 1 → 4 → 2 ranks across resumes, parts read and asked for in turn",
    f"loaded tables bit-identical, losses within {TOLERANCE:g} relative",
)  # fmt: skip
def other_world_sizes_among_relations(folder: Path) -> str:
    for num_workers, last, access in ((1, 7, "auto"), (4, 16, "exchange"), (2, NUM_STEPS, "auto")):
        config = world_run(
            folder, train={"max_steps": last}, launch={"num_workers": num_workers}, sampling={"access": access}
        )
        if num_workers != 1:
            loaded = run_held(jobs.load_only, config)
            assert loaded["state"] == state_of(config, loaded["step"]), f"loaded by {num_workers} ranks, other bits"
        api.train(config)
    difference = float(np.abs(losses_of(config) / losses_of(undisturbed()) - 1).max())
    assert difference < TOLERANCE, f"losses differ by {difference:.0e}"
    return f"tables bit-identical on 4 and 2 ranks; {NUM_STEPS} losses within {difference:.0e}"
