"""Questions about processes of this machine that may end while they are asked, a job for them, and requests to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from dist_gat.config.sections import Config
from dist_gat.exchange.stop_requests import Request, Requests
from dist_gat.exchange.worker import Worker


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_of(pid: int) -> str:
    """The command line, and nothing for a process that ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def children_of(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def becomes_true(condition: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def note_pid_and_wait(config: Config, worker: Worker) -> dict[str, Any]:
    """A job."""
    (config.run_folder / f"pid-{worker.rank}").write_text(str(os.getpid()))
    time.sleep(60)
    return {}


class AskedAt(Requests):
    """Asks to stop from its n-th look on; 0: never."""

    def __init__(self, look: int) -> None:
        self.look, self.looks = look, 0

    def poll(self) -> Request:
        self.looks += 1
        return Request.STOP if 0 < self.look <= self.looks else Request.NOTHING
