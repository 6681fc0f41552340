"""The quick rows of the scoreboard, and the scoreboard itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.__main__ import import_rows
from faults.board import ROWS, NotExercised, Row, exercise
from faults.guards import GUARDS, take_out

import_rows()


@pytest.mark.parametrize("number", [number for number, entry in sorted(ROWS.items()) if entry.is_quick])
def test_quick_row(number: int, tmp_path: Path) -> None:
    outcome = exercise(ROWS[number], tmp_path)
    if outcome.status == "not exercised":
        pytest.skip(outcome.happened)
    assert outcome.status == "pass", outcome.happened


def test_every_row_has_a_guard_that_can_be_taken_out() -> None:
    """`make guards` runs the rows without them."""
    assert {guard.row for guard in GUARDS} == set(ROWS)
    assert all(take_out(guard) for guard in GUARDS)


def test_a_row_that_falls_short_fails_and_one_that_cannot_run_does_not_pass(tmp_path: Path) -> None:
    def fall_short(folder: Path) -> str:
        raise AssertionError("lost two steps")

    def cannot(folder: Path) -> str:
        raise NotExercised("needs a second host")

    def fall_short_without_a_word(folder: Path) -> str:
        raise AssertionError

    runs = (fall_short, cannot, fall_short_without_a_word)
    outcomes = [exercise(Row(1, "do", "expect", run, False), tmp_path) for run in runs]
    assert [(o.status, o.happened) for o in outcomes] == [
        ("fail", "AssertionError: lost two steps"), ("not exercised", "needs a second host"),
        ("fail", "AssertionError: raise AssertionError"),
    ]  # fmt: skip
