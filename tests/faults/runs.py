"""A small run for the rows to disturb: its configuration, its fingerprints, and what "nothing lost" means."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from helpers import parse_sections
from processes import children_of, command_of, is_running
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dist_gat import api
from dist_gat.base.run_folder import lock_run
from dist_gat.checkpoints.checkpoint_store import FolderCheckpoints
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config
from dist_gat.jobs.job import Job
from dist_gat.launcher.launch import run_job
from dist_gat.train.event_log import PROGRESS_FILE

STEPS_PER_EPOCH = 11
NUM_STEPS = 33


def small_run(folder: Path, name: str = "run", **sections: dict[str, Any]) -> Config:
    """Three epochs of 11 steps on 2 local workers, in `folder/name`, on the data set that all rows share."""
    data = shared_folder()
    tree: dict[str, Any] = {
        "name": "faults",
        "run": str(folder / name),
        "data": {
            "path": str(data / "raw"), "interactions": "interactions.csv", "prepared": str(data / "prepared"),
            "nodes": {"item": {"table": "items.csv", "columns": {"title": "categories"}}},
        },
        "parts": {"num_parts": 4, "method": "hash"},
        "sampling": {"fanouts": [4, 4], "num_streams": 2},
        "negatives": {"num_shared": 32},
        "model": {"embedding_size": 16, "scoring": "dot", "decoder": {"kind": "cosine", "temperature": 0.2},
                  "inputs": {"fusion": "gate", "id_dropout": 0.1}},
        "train": {"num_epochs": 3, "batch_size": 256, "learning_rate": 0.02, "patience": 0, "log_every": 1},
        "evaluate": {"ks": [20]},
        "launch": {"launcher": "local", "num_workers": 2, "threads_per_worker": 1, "timeout_s": 20},
    }  # fmt: skip
    config = parse_sections(tree, sections)
    if not (data / "prepared").exists():
        api.write_synthetic(data / "raw", 200, 120, 4, 17, 0.1, 1)
        api.prepare(config)
    return config


@functools.cache
def shared_folder() -> Path:
    """A folder that goes away with this process."""
    folder = tempfile.mkdtemp(prefix="dist-gat-faults-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def reference_run() -> Config:
    """The run that nobody disturbed, with a checkpoint of every step."""
    config = small_run(shared_folder(), "reference", checkpoint={"every_steps": 1, "keep": NUM_STEPS})
    api.train(config)
    return config


def run_held(job: Job, config: Config) -> dict[str, Any]:
    """A job in a run folder that is held, as `train` holds it, so that the folder is a run's own."""
    with lock_run(config.run_folder):
        return run_job(job, config, quiet=True)


def checkpoints_of(config: Config) -> FolderCheckpoints:
    return FolderCheckpoints(config.run_folder / "checkpoints")


def state_of(config: Config, step: int | None = None) -> dict[str, str]:
    """SHA-256 of every tensor of a checkpoint, by file and name: parameters, optimiser rows, losses."""
    checkpoints = checkpoints_of(config)
    folder = checkpoints.folder(checkpoints.steps()[0] if step is None else step)
    files = {str(path.relative_to(folder)): load_file(path) for path in sorted(folder.rglob("*.safetensors"))}
    return hashes_of(files)


def hashes_of(files: dict[str, dict[str, torch.Tensor]]) -> dict[str, str]:
    return {
        f"{file}:{name}": hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        for file, tensors in files.items()
        for name, value in tensors.items()
    }


def assert_same_state(config: Config, step: int, found: dict[str, str] | None = None) -> None:
    """A checkpoint, or `found` hashes like those of one, has the bits of the undisturbed run at that step."""
    found, expected = found or state_of(config, step), state_of(reference_run(), step)
    assert "losses.safetensors:losses" in expected
    different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    assert not different, f"not the bits of the undisturbed run: {sorted(different)}"


def assert_nothing_lost(config: Config) -> None:
    """The run ended like the reference: bits of every loss, parameter and optimiser row; each step logged once."""
    assert checkpoints_of(config).steps()[0] == NUM_STEPS, f"ended at {checkpoints_of(config).steps()}"
    assert_same_state(config, NUM_STEPS)
    assert points_of(config) == list(range(1, NUM_STEPS + 1)), f"TensorBoard has the steps {points_of(config)}"
    assert not leftovers(config), f"left behind: {leftovers(config)}"


def points_of(config: Config) -> list[int]:
    """The steps of train/loss, as TensorBoard shows them."""
    events = EventAccumulator(str(config.run_folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def leftovers(config: Config) -> list[str]:
    """Temporary files and folders of ours; Ray has some of its own."""
    return [str(path) for path in config.run_folder.rglob(".*") if "ray" not in path.parts]


def events_of(config: Config, kind: str) -> list[dict[str, Any]]:
    path = config.run_folder / PROGRESS_FILE
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in events if event["event"] == kind]


class Command:
    """`dist-gat train` in a process of its own, with its workers."""

    patience_s = 60.0

    def __init__(self, config: Config, *overrides: str) -> None:
        path = config.run_folder.with_suffix(".yaml")
        path.write_text(dump_config(config))
        command = [sys.executable, "-m", "dist_gat.cli.main", "train", str(path), *overrides]
        # of this command alone: two on one folder would write over each other's lines
        self.log = config.run_folder.with_suffix(f".{time.monotonic_ns()}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        # a row that fails on its way does not leave it running
        weakref.finalize(self, end_process, self.process)
        self.config = config
        self.seen: set[int] = set()

    def workers(self) -> list[int]:
        """Process IDs of the ranks, in order of their start."""
        found = self.find_workers()
        self.seen |= set(found)
        return sorted(found)

    def find_workers(self) -> list[int]:
        return local_workers(self.process.pid)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        timeout_s = timeout_s or self.patience_s
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()}"
            assert time.monotonic() < end, f"waited {timeout_s} s: {self.log.read_text()}"
            time.sleep(0.02)

    def wait_for_step(self, step: int) -> None:
        """Until this attempt has logged a step of at least this number, or a later one."""
        before = len(events_of(self.config, "step"))
        self.wait_for(lambda: any(e["step"] >= step for e in events_of(self.config, "step")[before:]))
        self.workers()

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        os.kill(self.workers()[rank], number)

    def end(self, timeout_s: float = 90) -> tuple[int, str]:
        """Exit code and output. Checks that no worker outlives the command."""
        self.workers()
        code = self.process.wait(timeout_s)
        deadline = time.monotonic() + 5
        while (alive := [pid for pid in self.seen if is_running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive, f"orphans: {alive}"
        return code, " ".join(self.log.read_text().split())


class RayCommand(Command):
    """The same on Ray, whose workers may belong to a cluster that this command did not start."""

    patience_s = 180.0

    def find_workers(self) -> list[int]:
        return [pid for pid in psutil.pids() if "ray::RayTrainWorker" in command_of(pid)]


def end_process(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def local_workers(pid: int) -> list[int]:
    """The workers of a run in process `pid`, which are forked from a child of it."""
    nurseries = [child for child in children_of(pid) if "multiprocessing.forkserver" in command_of(child)]
    return [worker for nursery in nurseries for worker in children_of(nursery)]
