"""Rows in which checkpoints are disturbed while they are written, or damaged afterwards."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from faults import jobs
from faults.board import NotExercised, row
from faults.runs import (
    assert_nothing_lost,
    assert_same_state,
    checkpoints_of,
    leftovers,
    run_held,
    small_run,
    state_of,
)

from dist_gat import api
from dist_gat.base.errors import ClusterError, TrainingError
from dist_gat.base.run_folder import lock_run
from dist_gat.base.storage import verify_files
from dist_gat.checkpoints.checkpoint_store import DAMAGED
from dist_gat.checkpoints.snapshot import read_checkpoint
from dist_gat.config.sections import Config
from dist_gat.exchange.fail_together import FailedTogether
from dist_gat.exchange.worker import join_workers
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

# what a rank imports, so that each of many ranks starts at once
PRELOAD = ["dist_gat.api", "torch._dynamo", "pytest", "tensorboard.backend.event_processing.event_accumulator"]

# a checkpoint is being written when a killed process would leave something
WRITES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


@row(3, "SIGKILL at each write point of a checkpoint", "the previous checkpoint loads, the half-written one is ignored")
def kill_at_write_points(folder: Path) -> str:
    """Step 4 ends with a checkpoint each time; the k-th attempt is killed before the k-th operation on a file."""
    base = small_run(folder, "base", train={"max_steps": 3})
    api.train(base)
    points = {}
    for rank in (0, 1):
        for point in range(1, 200):
            config = small_run(folder, f"killed-{rank}-{point}", checkpoint={"every_steps": 1})
            shutil.copytree(base.run_folder, config.run_folder)
            codes = fork_ranks(folder, config, rank, point)
            if codes == [0, 0]:
                points[rank] = point - 1
                break
            assert codes[rank] == -signal.SIGKILL, f"rank {rank}, point {point}: exit codes {codes}"
            newest = checkpoints_of(config).steps()[0]
            assert newest in (3, 4), checkpoints_of(config).steps()
            whole = checkpoints_of(config).folder(newest)
            verify_files(whole, read_checkpoint(whole), "")
            assert_same_state(config, newest)
            last = config
    result = api.train(last)
    assert_nothing_lost(last)
    return f"{points[0]} points of rank 0 and {points[1]} of rank 1; then went on from step {result['resumed_from']}"


def fork_ranks(folder: Path, config: Config, victim: int, point: int) -> list[int | None]:
    """Two ranks that train one step and save; the victim is killed at its n-th write. Returns the exit codes."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    meeting = config.run_folder / "meeting"
    args = [(rank, config, str(meeting), point if rank == victim else None) for rank in (0, 1)]
    processes = [context.Process(target=one_step, args=a, daemon=True) for a in args]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
        process.join()
    meeting.unlink(missing_ok=True)
    return [process.exitcode for process in processes]


def one_step(rank: int, config: Config, meeting: str, point: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(meeting, 2), rank=rank, world_size=2, timeout=timedelta(seconds=15)
    )  # fmt: skip
    trainer = Trainer(config, join_workers(torch.device("cpu"), 1, 15))
    # the roll call that names the missing rank takes seconds, and is another row's
    trainer.writer.channel.store = None
    root, count = str(config.run_folder / "checkpoints"), 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        reads = event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax"))
        if event in WRITES and not reads and str(args[0]).startswith(root):
            tick()

    def write_in_halves(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            tick()
            return file.write(data[len(data) // 2 :])

    sys.addaudithook(watch)
    Path.write_bytes = write_in_halves  # type: ignore[method-assign, assignment]
    try:
        batch = next(trainer.batches(StepRange(0, 3, 4)))
        trainer.train_step(batch, at_end=True)
        trainer.save()
        trainer.writer.wait()
    except Exception:
        os._exit(1)
    os._exit(0)


@row(7, "flip one byte of a checkpoint", "refused, file named; falls back to the one before only when told to")
def flip_byte(folder: Path) -> str:
    # rows so long that the byte is not at an end of its file: what is at the ends is checked before workers start
    wide = {"embedding_size": 256}
    whole = small_run(folder, "whole", model=wide)
    api.train(whole)
    config = small_run(folder, model=wide, train={"max_steps": 8}, checkpoint={"every_steps": 4})
    api.train(config)
    longer = small_run(folder, model=wide)
    victim = checkpoints_of(config).folder(8) / "parts" / "0002.safetensors"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(ClusterError) as caught:
        api.train(longer)
    assert f"{victim}: expected SHA-256" in str(caught.value), caught.value
    assert "checkpoint.resume=previous" in str(caught.value)
    assert checkpoints_of(config).steps() == [8, 4], "nothing is changed until told to"
    told = small_run(folder, model=wide, checkpoint={"resume": "previous"})
    assert api.train(told)["resumed_from"] == 8, "the manifest is whole, so the workers find the damage"
    assert state_of(told) == state_of(whole)
    assert (victim.parents[1] / DAMAGED).is_file()
    return f"refused: {str(caught.value).partition(': ')[2][:150]}…; went on from step 4 when told to"


@row(8, "disk full (a small tmpfs) during save", "clear error, old checkpoint intact, temporary files gone")
def full_disk(folder: Path) -> str:
    config = small_run(folder, train={"max_steps": 5})
    root = config.run_folder / "checkpoints"
    with lock_run(config.run_folder):
        root.mkdir()
    with small_disk(root):
        api.train(config)
        before = state_of(config)
        ballast = root / "ballast"
        ballast.write_bytes(bytes(max(shutil.disk_usage(root).free - 40_000, 0)))
        longer = small_run(folder)
        with pytest.raises(ClusterError) as caught:
            api.train(longer)
        assert os.strerror(errno.ENOSPC) in str(caught.value), caught.value
        assert checkpoints_of(config).steps() == [5]
        assert state_of(config) == before
        assert not leftovers(config), leftovers(config)
        ballast.unlink()
        api.train(longer)
        assert_nothing_lost(longer)
    return f"{caught.value}; with room again, the run went on from step 5"


@contextmanager
def small_disk(mount_point: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(mount_point)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotExercised(f"can't mount a small tmpfs here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(mount_point)], check=True)


@row(9, "one rank's write fails", "both ranks raise and name it; nothing committed", is_quick=True)
def failing_write(folder: Path) -> str:
    config = small_run(folder, checkpoint={"every_steps": 4})
    with pytest.raises(ClusterError):
        run_held(jobs.failing_write, config)
    told = [json.loads((config.run_folder / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    for answer in told:
        assert answer["kind"] == FailedTogether.__name__
        assert "rank 1: [Errno 5] Input/output error" in answer["error"], answer["error"]
    assert checkpoints_of(config).steps() == [12, 11], checkpoints_of(config).steps()
    assert not leftovers(config), leftovers(config)
    api.train(config)
    assert_nothing_lost(config)
    return f"both: {told[0]['error'].partition('step-')[2]}"


@row(10, "NaN planted on one rank", "both stop before the update; parameters equal the step before", is_quick=True)
def not_a_number(folder: Path) -> str:
    told = []
    for job, term in (
        (jobs.nan_in_loss, "loss term softmax on rank 0, 1"),
        (jobs.nan_in_gradient, "gradient of the embedding rows on rank"),
    ):
        config = small_run(folder, job.__name__, checkpoint={"every_steps": 5})
        with pytest.raises(TrainingError, match=f"step {jobs.BAD_STEP}: not finite: ") as caught:
            run_held(job, config)
        assert term in str(caught.value), caught.value
        answers = [json.loads((config.run_folder / f"told-{rank}.json").read_text()) for rank in (0, 1)]
        assert answers[0]["error"] == answers[1]["error"] == str(caught.value)
        assert_same_state(config, jobs.BAD_STEP - 1, answers[0]["state"] | answers[1]["state"])
        assert checkpoints_of(config).steps()[0] == 15
        assert_same_state(config, 15)
        told.append(str(caught.value).partition(";")[0])
    api.train(config)
    assert_nothing_lost(config)
    return "; ".join(told)
