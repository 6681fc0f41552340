"""Shows what a run is doing, from the events that its rank 0 writes into the run folder.

Reading a file works alike for local processes and for Ray workers, whose own output stays quiet.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dist_gat.base.running_beside import running_beside
from dist_gat.exchange.long_work import Tell

POLL_S = 0.3
LINE_EVERY_S = 10.0


@contextmanager
def show_progress(events: Path, quiet: bool = False) -> Iterator[None]:
    """While the block runs, show new lines of `events` on standard error: a bar on a terminal, lines elsewhere."""
    if quiet:
        yield
        return
    console = Console(stderr=True)
    view = _Bar(console) if console.is_terminal else _Lines(console)
    tail = EventTail(events, events.stat().st_size if events.exists() else 0)
    try:
        with running_beside(partial(_follow, tail, view)):
            yield
    finally:
        view.close()


def work_in_words(what: str, done: int, total: int, seconds: float) -> str:
    """How far a long work is, and how long it takes yet, where it goes on as before."""
    rate = done / seconds if seconds else 0.0
    left = f", {duration((total - done) / rate)} left" if rate else ""
    return f"{what}: {done:,} of {total:,}, {rate:,.{0 if rate >= 10 else 2}f} a second{left}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def tell_lines(say: Callable[[str], None]) -> Tell:
    """A `Tell` that says a line every few seconds."""
    said_at = 0.0

    def tell(what: str, done: int, total: int, seconds: float) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_EVERY_S:
            said_at = time.monotonic()
            say(work_in_words(what, done, total, seconds))

    return tell


class EventTail:
    """The events that were added to a file since the last look."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """offset: bytes to pass over."""
        self.path, self.offset, self.rest = path, offset, b""

    def read(self) -> list[dict[str, Any]]:
        """The complete new lines; none where there is no file yet."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        return [json.loads(line) for line in lines]


def _follow(tail: EventTail, view: _Lines, done: threading.Event) -> None:
    last = False
    while not last:
        # read once more after the end, for what was written meanwhile
        last = done.wait(POLL_S)
        for event in tail.read():
            view.show(event)


class _Lines:
    """One line for each event that matters, at most one of training steps or of a long work every few seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tell = tell_lines(self.say)
        self.total_steps = 0
        self.last_step_line = 0.0

    def show(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            self.total_steps = event["total_steps"]
            start = f"going on from step {event['step']}" if event["step"] else "training"
            self.say(f"{start}: at most {event['epochs']} epochs of {event['steps_per_epoch']} steps")
        elif kind == "told":
            self.say(event["message"])
        elif kind == "step":
            self.step(event)
        elif kind == "valid":
            mark = ", best so far" if event["best"] else ""
            value = f"{event['metric']} {event['value']:.4f}{event.get('sample', '')}"
            self.say(f"epoch {event['epoch']}: valid {value}{mark}")
        elif kind == "work":
            self.work(event)
        elif kind == "text":
            self.say(f"texts encoded: vectors were stale by {event['staleness']:.4f} (1 - cos)")
        elif kind == "stop":
            self.say(f"asked to stop: saved at step {event['step']}")
        elif kind == "early_stop":
            self.say(f"no better metric since epoch {event['best_epoch']}: stopping")
        elif kind == "export":
            self.say(f"saving the model of epoch {event['epoch']}")
        elif kind == "profile":
            self.say(f"{event['message']}; trace for ui.perfetto.dev: {event['trace']}")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False)

    def step(self, event: dict[str, Any]) -> None:
        if time.monotonic() - self.last_step_line >= LINE_EVERY_S:
            self.last_step_line = time.monotonic()
            speed = f"{event['seeds_per_s']:,.0f} seeds/s"
            self.say(f"step {event['step']} of {self.total_steps}: loss {event['loss']:.4f}, {speed}")

    def work(self, event: dict[str, Any]) -> None:
        self.tell(event["what"], event["done"], event["total"], event["took"])

    def close(self) -> None:
        pass


class _Bar(_Lines):
    """The same on a terminal, with training steps or a long work as a bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
        self.task = self.progress.add_task("starting workers", total=None)
        self.progress.start()

    def step(self, event: dict[str, Any]) -> None:
        description = f"loss {event['loss']:.4f}, {event['seeds_per_s']:,.0f} seeds/s"
        self.progress.update(self.task, total=self.total_steps, completed=event["step"], description=description)

    def work(self, event: dict[str, Any]) -> None:
        what, done, total, seconds = (event[key] for key in ("what", "done", "total", "took"))
        description = work_in_words(what, done, total, seconds)
        self.progress.update(self.task, total=total, completed=done, description=description)

    def close(self) -> None:
        self.progress.stop()
