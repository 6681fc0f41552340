"""What the verbs print: tables for people on standard output, or one JSON object and nothing else there."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dist_gat.base.errors import printable
from dist_gat.base.json_text import to_json

# exit code of a run that was asked to stop, as after SIGTERM
STOPPED = 143


def print_what_can_be_shown() -> None:
    """From now on, let what a terminal's encoding lacks be a question mark, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Output:
    """Where a verb's result goes. With `as_json`, standard output carries the JSON object alone: whatever
    libraries print there goes to standard error."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.stdout = sys.stdout
        self.console = Console(stderr=as_json, highlight=False)

    def result(self, value: dict[str, Any], *tables: Table, notes: str = "") -> None:
        """Print the result: the JSON object, or the tables and notes."""
        if self.as_json:
            self.stdout.write(to_json(value, default=str) + "\n")
            self.stdout.flush()
            return
        for table in tables:
            self.console.print(table)
        if notes:
            self.console.print(Text(printable(notes)), soft_wrap=True)

    def progress(self, message: str) -> None:
        """One line of progress, on standard error."""
        Console(stderr=True, highlight=False).print(Text(f"  {printable(message)}"), soft_wrap=True)


@contextmanager
def open_output(as_json: bool) -> Iterator[Output]:
    """An `Output`; with `as_json`, file descriptor 1 points to standard error while the block runs."""
    output = Output(as_json)
    if not as_json:
        yield output
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    output.stdout = os.fdopen(saved, "w", encoding="utf-8", closefd=False)
    try:
        yield output
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def make_table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    """A table; numbers are set right, floats with four digits; text stays as it is, but for what a terminal obeys."""
    table = Table(title=Text(printable(title)), title_justify="left", min_width=len(title))
    for number, column in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        texts = [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(*[Text(printable(text, keep="")) for text in texts])
    return table
