"""Workers as plain local processes, without Ray: seconds to start, for tests, debugging and one machine."""

from __future__ import annotations

import json
import os
import tempfile
import traceback
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
        before = dict(os.environ)
        os.environ.update(worker_environment(config.launch))
        try:
            mp.start_processes(
                _worker_process, (job, config, meeting), config.launch.num_workers, start_method="spawn"
            )  # fmt: skip
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as err:
            raise first_error(Path(meeting), err) from None
        finally:
            os.environ.clear()
            os.environ.update(before)
        return json.loads((Path(meeting) / "result.json").read_text(encoding="utf-8"))


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


def first_error(meeting: Path, err: Exception) -> ClusterError:
    """The error of the rank that failed for a reason of its own, before those that only missed it."""
    errors = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(meeting.glob("error-*.json"))]
    if not errors:
        return ClusterError(f"a worker process ended without a word: {err}; was it killed for memory?")
    cause = min(errors, key=lambda error: (error["collective"], error["rank"]))
    return ClusterError(f"rank {cause['rank']} failed: {cause['message']}")
