"""Where the time of the training steps goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from torch.profiler import record_function

PHASES = ("sample", "exchange", "gather", "compute", "stall", "checkpoint")


class Stopwatch:
    """Seconds by phase since it was made.

    `sample` and the sampler's share of `exchange` run in the background, in several streams at the same time, so the
    phases can add up to more than the wall time; `stall` is what the model waited for its next batch, `checkpoint` what
    it waited for the copy of its state and for an earlier checkpoint that is still being written.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        with record_function(name):
            yield
        self.seconds[name] += time.perf_counter() - started

    def move(self, seconds: float, source: str, target: str) -> None:
        """Book `seconds` that were measured inside phase `source` under `target` instead."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def pause(self, seconds: float) -> None:
        """Leave `seconds` that just passed out of the wall time."""
        self.started += seconds

    def read(self) -> tuple[float, dict[str, float]]:
        """Wall seconds since the start, and each phase's share of them."""
        wall = time.perf_counter() - self.started
        return wall, {name: self.seconds[name] / wall for name in PHASES}
