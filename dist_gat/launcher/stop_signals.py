"""How a request to stop reaches a running job: by signals, or by a file in the run folder."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dist_gat.exchange.stop_requests import Request, Requests

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP_FILE = "stop"
LOOK_EVERY_S = 1.0


@contextmanager
def on_stop_signals(act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT call `act` instead of ending the process.

    Python lets the main thread alone handle signals; in another thread this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        act()

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SignalRequests(Requests):
    """SIGTERM or SIGINT asks a local worker to stop; further signals change nothing."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        with on_stop_signals(self._stop):
            yield

    def poll(self) -> Request:
        return Request.STOP if self.asked else Request.NOTHING

    def _stop(self) -> None:
        self.asked = True


class FileRequests(Requests):
    """A file named `stop` in the run folder asks to stop; a pre-emption notice asks to save until it is heeded."""

    def __init__(self, folder: Path, is_preempted: Callable[[], bool]) -> None:
        self.path, self.is_preempted = folder / STOP_FILE, is_preempted
        self.look_at = 0.0
        self.has_saved = False

    def poll(self) -> Request:
        if time.monotonic() < self.look_at:
            return Request.NOTHING
        self.look_at = time.monotonic() + LOOK_EVERY_S
        if self.path.exists():
            return Request.STOP
        if not self.has_saved and self.is_preempted():
            return Request.PREEMPT
        return Request.NOTHING

    def heed(self, request: Request) -> None:
        self.has_saved = self.has_saved or request == Request.PREEMPT
