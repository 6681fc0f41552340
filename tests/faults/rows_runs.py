"""Rows in which ranks, or whole runs, are killed, stopped, or started in other numbers."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from faults import jobs
from faults.board import row
from faults.runs import (
    NUM_STEPS,
    STEPS_PER_EPOCH,
    Command,
    assert_nothing_lost,
    checkpoints_of,
    events_of,
    leftovers,
    local_workers,
    points_of,
    reference_run,
    run_held,
    small_run,
    state_of,
)
from safetensors.torch import load_file

from dist_gat import api
from dist_gat.base.errors import ClusterError, ConfigError
from dist_gat.config.sections import Config
from dist_gat.graph.part import open_prepared
from dist_gat.jobs.job import Job

# float32 sums in another order, over the steps that remain
TOLERANCE = 1e-4


@row(1, "the same run twice", "identical bits", is_quick=True)
def twice(folder: Path) -> str:
    config = small_run(folder)
    api.train(config)
    assert_nothing_lost(config)
    return f"{NUM_STEPS} losses, all parameters and optimiser rows are the same"


@row(2, "SIGKILL a rank in mid-step", "the others stop within the timeout; resume loses nothing", is_quick=True)
def kill_in_step(folder: Path) -> str:
    config = small_run(folder, checkpoint={"every_steps": 5})
    took = fail(config, jobs.killed_in_step, "rank 1 failed: its process ended without a word, exit code -9")
    assert took < config.launch.timeout_s + 10
    result = api.train(config)
    # whether that of step 15, the last one, was written when the rank was killed depends on the disk
    assert 0 < result["resumed_from"] < jobs.BAD_STEP, result["resumed_from"]
    assert_nothing_lost(config)
    return f"ended {took:.0f} s after the start, naming rank 1; went on from step {result['resumed_from']}"


@row(4, "SIGTERM to all", "the step finishes, a checkpoint is saved, resume repeats no step")
def terminate_all(folder: Path) -> str:
    config = small_run(folder)
    command = Command(config)
    command.wait_for_step(5)
    for rank in (0, 1):
        command.kill(rank, signal.SIGTERM)
    command.process.terminate()
    code, output = command.end()
    assert code == 143, output
    saved = checkpoints_of(config).steps()[0]
    assert f"stopped and saved at step {saved}" in output
    assert Command(config).end()[0] == 0
    assert [event["step"] for event in events_of(config, "step")] == list(range(1, NUM_STEPS + 1)), "a step came twice"
    assert_nothing_lost(config)
    return f"saved at step {saved}; every step was done once"


@row(5, "ten random SIGKILLs over one run", "nothing lost")
def ten_kills(folder: Path) -> str:
    # the slow way to sample, so that ten kills fit into the run
    sampling = {"access": "exchange", "prefetch": False, "fanouts": [4, 4]}
    config = small_run(folder, checkpoint={"every_steps": 1}, sampling=sampling)
    draw, killed = random.Random(5), []
    for _ in range(10):
        before = checkpoints_of(config).steps()
        command = Command(config)
        command.wait_for(lambda before=before: checkpoints_of(config).steps() > before)  # type: ignore[misc]
        time.sleep(draw.random() / 20)
        victim = draw.choice(["rank 0", "rank 1", "all"])
        command.workers()
        if victim == "all":
            command.process.kill()
        else:
            command.kill(int(victim[-1]))
        assert command.end()[0] != 0, "it ended before it was killed"
        killed.append(victim)
    assert Command(config).end()[0] == 0
    starts = [event["step"] for event in events_of(config, "start")]
    assert starts == sorted(set(starts)), f"no progress between kills: started at {starts}"
    assert_nothing_lost(config)
    return f"killed {', '.join(killed)}; started at steps {', '.join(map(str, starts))}"


@row(
    6, "2 → 1 → 4 → 2 ranks across resumes",
    f"loaded tables bit-identical, every seed edge once, later losses within {TOLERANCE:g} relative",
)  # fmt: skip
def other_world_sizes(folder: Path) -> str:
    stages = ((2, 8), (1, 16), (4, 24), (2, NUM_STEPS))
    for num_workers, last in stages:
        config = small_run(folder, train={"max_steps": last}, launch={"num_workers": num_workers})
        if last != stages[0][1]:
            loaded = run_held(jobs.load_only, config)
            assert loaded["state"] == state_of(config, loaded["step"]), f"loaded by {num_workers} ranks, other bits"
        run_held(jobs.keep_seeds, config)
    assert_seeds_once(config)
    losses = load_file(checkpoints_of(config).folder(NUM_STEPS) / "losses.safetensors")["losses"].numpy()
    expected = load_file(checkpoints_of(reference_run()).folder(NUM_STEPS) / "losses.safetensors")["losses"].numpy()
    difference = float(np.abs(losses / expected - 1).max())
    assert (losses[:8] == expected[:8]).all()
    assert difference < TOLERANCE, difference
    return f"tables bit-identical on 1, 4 and 2 ranks; {NUM_STEPS} losses within {difference:.0e}"


def assert_seeds_once(config: Config) -> None:
    """Every training edge was a seed exactly once in each epoch."""
    prepared = open_prepared(config.data.prepared)
    edges = np.concatenate([part.pairs(prepared.schema.relations[0], "train") for part in prepared.parts])
    expected = sorted(map(tuple, edges.tolist()))
    for epoch in range(NUM_STEPS // STEPS_PER_EPOCH):
        files = list(config.run_folder.glob(f"seeds-{epoch}-*.npy"))
        found = sorted(tuple(edge) for file in files for edge in np.load(file).tolist())
        assert found == expected, f"epoch {epoch}: {len(found)} seeds, {len(expected)} edges"


@row(13, "resume with a changed model or data set", "refused, fields listed", is_quick=True)
def changed_settings(folder: Path) -> str:
    config = small_run(folder, train={"max_steps": 3}, launch={"num_workers": 1})
    api.train(config)
    before, children = state_of(config), local_workers(os.getpid())
    other = small_run(
        folder,
        model={"embedding_size": 32, "scoring": "additive"},
        negatives={"num_shared": 9},
        train={"max_steps": 6},
    )
    refused = refusal(other)
    for field in ("model.embedding_size: saved 16, now 32", "model.scoring: saved dot", "negatives.num_shared"):
        assert field in refused, refused
    assert "max_steps" not in refused, "a constant learning rate allows a longer run"
    assert "train.max_steps" in refusal(small_run(folder, train={"max_steps": 6, "schedule": "cosine"}))
    data = {"prepared": str(folder / "other"), "split": {"valid_ratio": 0.2}}
    foreign = small_run(folder, data=data, train={"max_steps": 6})
    api.prepare(foreign)
    assert "the data set in" in refusal(foreign)
    assert local_workers(os.getpid()) == children, "a worker was started"
    assert state_of(config) == before
    return "refused before any worker started: " + refused.partition(": ")[2].partition(". ")[0]


def refusal(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        api.train(config)
    return str(caught.value)


@row(14, "SIGSTOP one rank", "timeout error names it; no orphans", is_quick=True)
def stop_in_step(folder: Path) -> str:
    config = small_run(folder, launch={"timeout_s": 4})
    took = fail(config, jobs.stopped_in_step, "rank 1 does not answer")
    return f"ended {took:.0f} s after the start, naming rank 1"


def fail(config: Config, job: Job, message: str) -> float:
    """Run a job that is to fail with this message; no process of it stays. Returns the seconds that it took."""
    before, shared, started = set(local_workers(os.getpid())), set(os.listdir("/dev/shm")), time.monotonic()
    with pytest.raises(ClusterError, match=message):
        run_held(job, config)
    took = time.monotonic() - started
    orphans = set(local_workers(os.getpid())) - before
    assert not orphans, f"left behind: {orphans}"
    leaked = set(os.listdir("/dev/shm")) - shared
    assert not leaked, f"left in /dev/shm: {leaked}"
    return took


@row(19, "two runs on one folder", "the second refuses", is_quick=True)
def two_runs(folder: Path) -> str:
    # the first has hours to go
    config = small_run(folder, train={"num_epochs": 100_000, "validate_every": 100_000})
    first = Command(config)
    first.wait_for_step(1)
    second = Command(config.model_copy(), "checkpoint.resume=restart")
    code, output = second.end()
    assert code == 1, output
    assert "another run holds this folder (process" in output, output
    first.process.terminate()
    code, output = first.end()
    assert code == 143, output
    last = checkpoints_of(config).steps()[0]
    assert points_of(config) == list(range(1, last + 1))
    assert len(events_of(config, "start")) == 1
    return "the second said who holds the folder, and changed nothing"


@row(20, "TensorBoard after row 2, with rank 0 killed", "every step once")
def tensorboard(folder: Path) -> str:
    config = small_run(folder, checkpoint={"every_steps": 5})
    fail(config, jobs.killed_writer_in_step, "rank 0 failed")
    before = points_of(config)
    api.train(config)
    assert_nothing_lost(config)
    return f"{len(before)} points after the kill, at the end steps 1 to {NUM_STEPS} once each"


@row(21, "memory over 2,000 steps; 200 checkpoints", "flat; only the kept ones remain")
def long_run(folder: Path) -> str:
    config = small_run(
        folder,
        train={"num_epochs": 200, "max_steps": 2000, "validate_every": 20, "log_every": 10, "batch_size": 256},
        checkpoint={"every_steps": 10, "keep": 3},
    )
    command = Command(config)
    resident: dict[int, list[float]] = {}
    for step in (500, 1000, 1500, 1950):
        command.wait_for(lambda step=step: any(e["step"] >= step for e in events_of(config, "step")[-3:]), 300)  # type: ignore[misc]
        resident[step] = [resident_mib(pid) for pid in command.workers()]
    assert command.end(120)[0] == 0
    saves = [event["step"] for event in events_of(config, "save")]
    assert len(saves) >= 200
    best = events_of(config, "done")[0]["best_epoch"] * STEPS_PER_EPOCH
    kept = checkpoints_of(config).steps()
    assert kept[:3] == saves[:-4:-1], kept
    assert set(kept[3:]) <= {best}, kept
    growth = max(late - early for early, late in zip(resident[500], resident[1950], strict=True))
    assert growth < 16, f"MiB by step: {resident}"
    assert not leftovers(config)
    return f"{growth:+.1f} MiB a rank from step 500 to 1950; {len(saves)} checkpoints written, {len(kept)} kept"


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20
