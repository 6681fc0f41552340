"""`EventLog`: what a run tells whoever watches it, one JSON line an event. Rank 0 alone writes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TextIO

from dist_gat.base.json_text import to_json

PROGRESS_FILE = "progress.jsonl"


class EventLog:
    """Adds to `run_folder/progress.jsonl`; does nothing on ranks other than 0."""

    def __init__(self, run_folder: Path, rank: int) -> None:
        self.file = open_lines(run_folder / PROGRESS_FILE) if rank == 0 else None
        self.started = time.perf_counter()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def event(self, kind: str, **values: Any) -> None:
        """One line."""
        if self.file is not None:
            seconds = round(time.perf_counter() - self.started, 3)
            self.file.write(to_json({"event": kind, "seconds": seconds, **values}) + "\n")
            self.file.flush()

    def work(self, what: str, done: int, total: int, seconds: float) -> None:
        """A `Tell`: how far a long work is."""
        self.event("work", what=what, done=done, total=total, took=seconds)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def open_lines(path: Path) -> TextIO:
    """Open a file of lines to add some; ends a line that a killed process left unfinished."""
    file = path.open("a+", encoding="utf-8")
    if file.tell():
        file.seek(file.tell() - 1)
        if file.read(1) != "\n":
            file.write("\n")
    return file
