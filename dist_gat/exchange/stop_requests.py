"""What whoever started the workers asks of a running job: to save its state, or to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Request(IntEnum):
    """The higher one counts where ranks are asked for different things."""

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
        """What is asked now; cheap enough for every step."""
        return Request.NOTHING

    def heed(self, request: Request) -> None:
        """All ranks now do what any of them was asked, whether or not this rank has heard of it yet."""
