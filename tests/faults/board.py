"""The scoreboard of faults: each row plants one, with real processes and files, and checks what comes of it.

A row is a function of an empty folder. It returns what happened, raises `AssertionError` where that falls
short of what was expected, and `NotExercised` where this machine can't plant the fault for real.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pytest

RowFunction = Callable[[Path], str]


class NotExercised(Exception):
    """This machine can't plant the fault; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """number: of the row in docs/reliability.md. is_quick: runs in the test suite too."""

    number: int
    do: str
    expect: str
    run: RowFunction
    is_quick: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a row, as in build/faults.json."""

    row: int
    do: str
    expect: str
    status: Literal["pass", "fail", "not exercised"]
    happened: str
    seconds: float


ROWS: dict[int, Row] = {}


def row(number: int, do: str, expect: str, is_quick: bool = False) -> Callable[[RowFunction], RowFunction]:
    """Put the decorated function on the board."""

    def add(function: RowFunction) -> RowFunction:
        assert number not in ROWS, f"row {number} is there twice"
        ROWS[number] = Row(number, do, expect, function, is_quick)
        return function

    return add


def exercise(entry: Row, folder: Path) -> Outcome:
    """Run one row in an empty folder."""
    started = time.perf_counter()
    status: Literal["pass", "fail", "not exercised"]
    try:
        status, happened = "pass", entry.run(folder)
    except NotExercised as err:
        status, happened = "not exercised", str(err)
    except (Exception, pytest.fail.Exception) as err:
        # a bare assertion has no message but its own line
        message = str(err) or traceback.extract_tb(err.__traceback__)[-1].line
        status, happened = "fail", f"{type(err).__name__}: {message}"
    return Outcome(entry.number, entry.do, entry.expect, status, happened, round(time.perf_counter() - started, 1))


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1), encoding="utf-8")
