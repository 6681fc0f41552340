"""Workers as plain local processes, without Ray: seconds to start, for tests, debugging and one machine."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dist_gat.config import Config
from dist_gat.errors import ClusterError, DistGatError
from dist_gat.exchange.worker import join_workers
from dist_gat.launcher.host import keep_freed_memory, threads_per_worker, worker_environment
from dist_gat.launcher.job import Job


def run_local(job: Job, config: Config) -> dict[str, Any]:
    """Run a job on `launch.num_workers` local processes and return rank 0's result.

    One worker runs in this process. Raises `ClusterError` with the first failing rank's message.
    """
    if config.launch.num_workers == 1:
        keep_freed_memory()
        device = worker_device(config, 0)
        return job(config, join_workers(device, threads_per_worker(config.launch), config.launch.timeout_s))
    with tempfile.TemporaryDirectory(prefix="dist-gat-") as meeting:
        # it warns of every worker that it ends after one has failed; the error below says which and why
        logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
        with environment(worker_environment(config.launch)):
            workers = mp.start_processes(
                _worker_process, (job, config, meeting), config.launch.num_workers, join=False, start_method="spawn"
            )
        try:
            while not workers.join():
                pass
        except (mp.ProcessRaisedException, mp.ProcessExitedException):
            raise first_error(Path(meeting), [process.exitcode for process in workers.processes]) from None
        return json.loads((Path(meeting) / "result.json").read_text(encoding="utf-8"))


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that the block starts."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def worker_device(config: Config, local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if config.launch.use_gpu else torch.device("cpu")


def _worker_process(rank: int, job: Job, config: Config, meeting: str) -> None:
    launch = config.launch
    keep_freed_memory()
    folder = Path(meeting)
    device = worker_device(config, rank)
    try:
        dist.init_process_group(
            "nccl" if launch.use_gpu else "gloo",
            init_method=f"file://{folder / 'rendezvous'}",
            rank=rank,
            world_size=launch.num_workers,
            timeout=timedelta(seconds=launch.timeout_s),
        )
        result = job(config, join_workers(device, threads_per_worker(launch), launch.timeout_s))
        if rank == 0:
            (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        dist.destroy_process_group()
    except Exception as err:
        message = str(err) if isinstance(err, DistGatError) else traceback.format_exc()
        error = {"rank": rank, "message": message, "collective": isinstance(err, ClusterError)}
        (folder / f"error-{rank}.json").write_text(json.dumps(error), encoding="utf-8")
        raise


def first_error(meeting: Path, exit_codes: list[int | None]) -> ClusterError:
    """The error of the rank that failed for a reason of its own, before those that only missed it.

    exit_codes: of the worker processes, by rank; the parent ends the healthy ones with SIGTERM.
    """
    errors = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(meeting.glob("error-*.json"))]
    told = {error["rank"] for error in errors}
    died = {rank: code for rank, code in enumerate(exit_codes) if rank not in told and code not in (0, -signal.SIGTERM)}
    own = [error for error in errors if not error["collective"]]
    if died and not own:
        rank, code = min(died.items())
        return ClusterError(
            f"rank {rank} failed: its process ended without a word, exit code {code}; -9 often means that the host "
            "ran out of memory: choose a smaller train.batch_size or more hosts"
        )
    cause = min(own or errors, key=lambda error: error["rank"])
    return ClusterError(f"rank {cause['rank']} failed: {cause['message']}")
