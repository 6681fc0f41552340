"""`HostWatch`: says when a cluster loses a host or gets one, and when a run waits for room.

Ray finds out by itself, some seconds or a minute after a host is gone, and starts the workers anew where there is room.
What it says of that is of its own insides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LOOK_EVERY_S = 2.0
# looks with room for all before a run that has not begun is told
PATIENT_LOOKS = 45


@dataclass
class HostWatch:
    """hosts: reads the workers that each living host has room for, by address. wanted: workers. say: for people.
    has_begun: whether the workers have said anything yet. looks: with room for all, and nothing said."""

    hosts: Callable[[], Mapping[str, int]]
    wanted: int
    say: Callable[[str], None]
    has_begun: Callable[[], bool] = lambda: True
    clock: Callable[[], str] = field(default=lambda: time.strftime("%H:%M:%S"))
    known: dict[str, int] = field(default_factory=dict)
    waits: bool = False
    looks: int = 0

    def look(self) -> None:
        """Compare with the last look. The first one says nothing of the hosts that are there."""
        found = dict(self.hosts())
        if self.known:
            for address in self.known.keys() - found.keys():
                self.say(f"{self.clock()}: lost host {address}")
            for address in found.keys() - self.known.keys():
                self.say(f"{self.clock()}: host {address} joined, with room for {workers(found[address])}")
        room = sum(found.values())
        if room < self.wanted:
            if not self.waits or found != self.known:
                self.say(f"{self.clock()}: waiting for room: {workers(self.wanted)} wanted, room for {room}")
        elif self.waits:
            self.say(f"{self.clock()}: there is room for {workers(self.wanted)} again")
        self.known, self.waits = found, room < self.wanted
        self._look_for_beginning()

    def _look_for_beginning(self) -> None:
        """A host with room may be one where no process starts, and Ray tries without end and without a word."""
        if self.waits or self.looks > PATIENT_LOOKS or self.has_begun():
            return
        self.looks += 1
        if self.looks > PATIENT_LOOKS:
            self.say(
                f"{self.clock()}: there is room for {workers(self.wanted)}, but for {PATIENT_LOOKS * LOOK_EVERY_S:.0f} "
                "s they have not begun; Ray goes on trying: look for a full disk, or for another Python, on each host "
                "and in its logs, session_latest/logs in Ray's folder of temporary files"
            )

    def until(self, done: threading.Event) -> None:
        """Look now and then. A look that fails is passed over: the run says itself where the cluster is gone."""
        while True:
            try:
                self.look()
            except Exception:
                if done.is_set():
                    return
            if done.wait(LOOK_EVERY_S):
                return


def workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"
