"""Local workers: results, errors that name the failing rank, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from processes import becomes_true, is_running, note_pid_and_wait

from dist_gat.base.errors import ClusterError, DataError
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.exchange.worker import Worker
from dist_gat.launcher.host import threads_per_worker, worker_environment
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.local import run_processes


def config_of(folder: Path, **launch: Any) -> Config:
    settings = {"launcher": "local", "num_workers": 2, "threads_per_worker": 1, "timeout_s": 20, **launch}
    tree = {"name": "job", "run": str(folder / "run"), "data": {"interactions": "x.csv"}, "launch": settings}
    return parse_config(tree)


def add_ranks(config: Config, worker: Worker) -> dict[str, Any]:
    total = worker.control.sum(torch.tensor([worker.rank + 1.0]))
    shares = worker.rows.shared is not None
    return {"total": float(total), "threads": torch.get_num_threads(), "pid": os.getpid(), "shares": shares}


def fail_on_rank_1(config: Config, worker: Worker) -> dict[str, Any]:
    if worker.rank == 1:
        raise DataError("bad.csv, row 7: no user_id")
    worker.control.barrier()
    return {}


def stop_rank_1(config: Config, worker: Worker) -> dict[str, Any]:
    if worker.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    worker.control.barrier()
    return {}


def die_on_rank_1(config: Config, worker: Worker) -> dict[str, Any]:
    if worker.rank == 1:
        os._exit(9)
    worker.control.barrier()
    return {}


def children() -> set[int]:
    """Processes below this one, but for those that multiprocessing keeps for the next run."""
    below = psutil.Process().children(recursive=True)
    return {child.pid for child in below if not {"resource_tracker", "forkserver"} & set(role_of(child))}


def role_of(process: psutil.Process) -> list[str]:
    """The module of multiprocessing that a helper of its runs; workers, forked from one, look the same."""
    if process.ppid() != os.getpid():
        return []
    return [word for part in process.cmdline() for word in part.replace(".", " ").split()]


def test_one_worker_may_have_a_process_of_its_own(tmp_path: Path) -> None:
    result = run_processes(add_ranks, config_of(tmp_path, num_workers=1))
    assert result["total"] == 1.0
    assert result["pid"] != os.getpid()


def test_workers_share_a_sum_and_return_rank_0s_result(tmp_path: Path) -> None:
    result = run_job(add_ranks, config_of(tmp_path, threads_per_worker=2), quiet=True)
    assert result["total"] == 3.0
    assert result["threads"] == 2
    assert result["pid"] != os.getpid()
    assert result["shares"], "rows go through memory"


def test_rows_go_through_sockets_where_ranks_behave_as_on_hosts_of_their_own(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    apart = config.model_copy(update={"sampling": config.sampling.model_copy(update={"access": "exchange"})})
    assert not run_job(add_ranks, apart, quiet=True)["shares"]


def test_one_worker_runs_here(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    result = run_job(add_ranks, config_of(tmp_path, num_workers=1), quiet=True)
    torch.set_num_threads(threads)
    assert result == {"total": 1.0, "threads": 1, "pid": os.getpid(), "shares": False}


@pytest.mark.parametrize(
    ("job", "message"),
    [(fail_on_rank_1, "rank 1 failed: bad.csv, row 7: no user_id"), (die_on_rank_1, "exit code 9")],
)
def test_the_error_is_that_of_the_rank_that_failed(tmp_path: Path, job: Any, message: str) -> None:
    before = children()
    with pytest.raises(ClusterError, match=message):
        run_job(job, config_of(tmp_path), quiet=True)
    assert children() <= before


def test_a_rank_that_does_not_answer_ends_the_run_within_the_timeout(tmp_path: Path) -> None:
    started, before = time.monotonic(), children()
    with pytest.raises(ClusterError, match="all_reduce on channel 'control' failed: rank 1 does not answer"):
        run_job(stop_rank_1, config_of(tmp_path, timeout_s=5), quiet=True)
    assert time.monotonic() - started < 50
    assert children() <= before


def test_threads_are_set_explicitly_and_the_environment_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(os.environ)
    run_job(add_ranks, config_of(tmp_path), quiet=True)
    assert dict(os.environ) == before
    environment = worker_environment(LaunchConfig(num_workers=2, threads_per_worker=3))
    assert environment["OMP_NUM_THREADS"] == environment["NUMBA_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "passive"
    assert environment["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in worker_environment(LaunchConfig(interface=None))
    assert threads_per_worker(LaunchConfig(num_workers=10_000)) == 1


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(
        target=run_job, args=(note_pid_and_wait, config_of(tmp_path), True)
    )
    parent.start()
    notes = [tmp_path / "run" / f"pid-{rank}" for rank in (0, 1)]
    assert becomes_true(lambda: all(note.exists() and note.read_text() for note in notes), 60)
    parent.kill()
    parent.join()
    pids = [int(note.read_text()) for note in notes]
    assert becomes_true(lambda: not any(is_running(pid) for pid in pids), 10)
