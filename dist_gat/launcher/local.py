"""Workers as plain local processes, without Ray: seconds to start, for tests, debugging and one machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import traceback
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dist_gat.base.errors import DistGatError
from dist_gat.config.sections import Config
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.job import Job
from dist_gat.launcher.host import end_with_parent, keep_freed_memory, threads_per_worker, worker_environment
from dist_gat.launcher.lost_workers import first_error, wait_for_workers
from dist_gat.launcher.preload import start_nursery
from dist_gat.launcher.stop_signals import SignalRequests


def run_local(job: Job, config: Config) -> dict[str, Any]:
    """Run a job on `launch.num_workers` local processes and return rank 0's result.

    One worker runs in this process. Raises `ClusterError` with the first failing rank's message, `TrainingError` where
    all of them stopped at numbers that went wrong. A signal to stop is handed on to the workers; raises
    `KeyboardInterrupt` where one of them then fails.
    """
    if config.launch.num_workers == 1:
        keep_freed_memory()
        device = worker_device(config, 0)
        threads, timeout_s = threads_per_worker(config.launch), config.launch.timeout_s
        return job(config, join_workers(device, threads, timeout_s, SignalRequests()))
    return run_processes(job, config)


def run_processes(job: Job, config: Config) -> dict[str, Any]:
    """Run a job on `launch.num_workers` local processes, a single worker too in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="dist-gat-") as meeting:
        exit_codes = wait_for_workers(start_workers(job, config, meeting))
        if any(exit_codes):
            raise first_error(Path(meeting), exit_codes)
        return json.loads((Path(meeting) / "result.json").read_text(encoding="utf-8"))


def start_workers(job: Job, config: Config, meeting: str) -> list[BaseProcess]:
    """Start one process a rank; they end with this process at the latest."""
    start_nursery(config.launch)
    context = multiprocessing.get_context("forkserver")
    ranks = range(config.launch.num_workers)
    workers = [context.Process(target=_worker_process, args=(r, job, config, meeting), daemon=True) for r in ranks]
    for worker in workers:
        worker.start()
    return list(workers)


def worker_device(config: Config, local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if config.launch.use_gpu else torch.device("cpu")


def _worker_process(rank: int, job: Job, config: Config, meeting: str) -> None:
    launch = config.launch
    # the fork server may have been started with other settings
    os.environ.update(worker_environment(launch))
    # a terminal's Ctrl-C goes to the launcher's process group: the launcher alone decides what follows
    os.setpgrp()
    end_with_parent()
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
        threads, shares = threads_per_worker(launch), config.sampling.access == "auto"
        result = job(config, join_workers(device, threads, launch.timeout_s, SignalRequests(), shares))
        if rank == 0:
            (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        dist.destroy_process_group()
    except Exception as err:
        message = str(err) if isinstance(err, DistGatError) else traceback.format_exc()
        error = {"rank": rank, "message": message, "kind": type(err).__name__}
        (folder / f"error-{rank}.json").write_text(json.dumps(error), encoding="utf-8")
        sys.exit(1)
