"""What happens to a local run when a worker is lost: the others end, and the error that says most is told.

With Ray, Ray Train does it: it restarts the workers from the last checkpoint, see `launcher/ray.py`. What the other
ranks notice themselves is in `exchange/fail_together.py` and `train/step_vote.py`.
"""

from __future__ import annotations

import json
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from dist_gat.base.errors import ClusterError, DistGatError, TrainingError
from dist_gat.launcher.stop_signals import on_stop_signals


def wait_for_workers(workers: list[BaseProcess]) -> list[int | None]:
    """Wait until all end well or one does not, then end the others.

    Returns the exit code of each rank before the others were ended; None for those that still ran. The first
    signal to stop goes to all workers, the second ends them. Raises `KeyboardInterrupt` where a worker did not
    end well after a signal.
    """
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        for worker in workers:
            worker.terminate() if asked == 1 else worker.kill()

    try:
        with on_stop_signals(stop):
            while not any(worker.exitcode for worker in workers):
                # read each `exitcode` once, because it changes: waiting for an empty list would never end
                running = [worker for worker in workers if worker.exitcode is None]
                if not running:
                    break
                wait([worker.sentinel for worker in running])
        exit_codes = [worker.exitcode for worker in workers]
        if asked and any(exit_codes):
            raise KeyboardInterrupt
        return exit_codes
    finally:
        # a worker that listens for SIGTERM, or is stopped, would not end by it
        for worker in workers:
            worker.kill()
            worker.join()


def first_error(meeting: Path, exit_codes: list[int | None]) -> DistGatError:
    """The error of a rank that failed for a reason of its own, rather than of one that only missed that rank."""
    errors = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(meeting.glob("error-*.json"))]
    told = {error["rank"] for error in errors}
    died = {rank: code for rank, code in enumerate(exit_codes) if code and rank not in told}
    own = [error for error in errors if error["kind"] != ClusterError.__name__]
    if died and not own:
        rank, code = min(died.items())
        return ClusterError(
            f"rank {rank} failed: its process ended without a word, exit code {code}; -9 often means that the host "
            "ran out of memory: choose a smaller train.batch_size or more hosts"
        )
    cause = min(own or errors, key=lambda error: error["rank"])
    if cause["kind"] == TrainingError.__name__:
        return TrainingError(cause["message"])
    return ClusterError(f"rank {cause['rank']} failed: {cause['message']}")
