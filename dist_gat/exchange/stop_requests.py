"""Requests of a launcher to a running job: save the state, or stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Request(IntEnum):
    """Where ranks receive different requests, the highest counts."""

    NOTHING = 0
    SAVE = 1
    PREEMPT = 2
    """A node is about to go: save, once."""
    STOP = 3


class Requests:
    """Requests to one rank. This one never asks; launchers bring their own."""

    @contextmanager
    def heard(self) -> Iterator[None]:
        """While the block runs, the job listens. Before and after it, a signal ends the process as usual."""
        yield

    def poll(self) -> Request:
        """The present request; cheap enough for every step."""
        return Request.NOTHING

    def heed(self, request: Request) -> None:
        """Called when all ranks obey `request`, which this rank itself may not have received yet."""
