"""How a request to stop reaches a running job: by signals, or by a file in the run folder, or at its URL."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from dist_gat.base.errors import StorageError
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.exchange.stop_requests import Request, Requests

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP_FILE = "stop"
LOOK_EVERY_S, LOOK_THERE_EVERY_S = 1.0, 10.0


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


class StopFile:
    """The file `stop` in a run folder. Of a run at a URL the folder is one of many hosts, so it is there too."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.path, self.remote = folder / STOP_FILE, RemoteFolder(url) if url else None
        self.look_at = 0.0

    def exists(self) -> bool:
        """Looks at the URL every few seconds."""
        if self.remote is None or self.path.exists() or time.monotonic() < self.look_at:
            return self.path.exists()
        self.look_at = time.monotonic() + LOOK_THERE_EVERY_S
        with suppress(StorageError):  # a store that does not answer asks for nothing
            return self.remote.read(STOP_FILE) is not None
        return False

    def touch(self) -> None:
        self.path.touch()
        if self.remote is not None:
            self.remote.write(STOP_FILE, b"")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.remove(STOP_FILE)


class FileRequests(Requests):
    """A file named `stop` in the run folder asks to stop; a pre-emption notice asks to save until it is heeded."""

    def __init__(self, file: StopFile, is_preempted: Callable[[], bool]) -> None:
        self.file, self.is_preempted = file, is_preempted
        self.look_at = 0.0
        self.has_saved = False

    def poll(self) -> Request:
        if time.monotonic() < self.look_at:
            return Request.NOTHING
        self.look_at = time.monotonic() + LOOK_EVERY_S
        if self.file.exists():
            return Request.STOP
        if not self.has_saved and self.is_preempted():
            return Request.PREEMPT
        return Request.NOTHING

    def heed(self, request: Request) -> None:
        self.has_saved = self.has_saved or request == Request.PREEMPT
