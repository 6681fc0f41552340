"""`make faults`: run all rows of the scoreboard, or those named on the command line; print and write the table."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.board import ROWS, Outcome, exercise, write_outcomes  # noqa: E402

COLOURS = {"pass": "green", "fail": "red", "not exercised": "yellow"}
TARGET = Path("build/faults.json")


def import_rows() -> None:
    """Every module `rows_*.py` beside this one puts its rows on the board."""
    for path in sorted(Path(__file__).parent.glob("rows_*.py")):
        importlib.import_module(f"faults.{path.stem}")


def show(outcomes: list[Outcome]) -> Table:
    table = Table(title="faults", title_justify="left", show_lines=True)
    for column in ("row", "do", "expect", "status", "happened", "s"):
        table.add_column(column)
    for o in outcomes:
        status = f"[{COLOURS[o.status]}]{o.status}[/]"
        table.add_row(str(o.row), escape(o.do), escape(o.expect), status, escape(o.happened), f"{o.seconds:.1f}")
    return table


def main(wanted: list[int]) -> int:
    import_rows()
    console = Console()
    outcomes = []
    for number in wanted or sorted(ROWS):
        console.print(f"row {number}: {ROWS[number].do} …", highlight=False)
        with tempfile.TemporaryDirectory(prefix=f"dist-gat-row-{number}-") as folder:
            outcomes.append(exercise(ROWS[number], Path(folder)))
        last = outcomes[-1]
        console.print(f"  {last.status} ({last.seconds} s): {escape(last.happened)}", highlight=False)
    console.print(show(outcomes))
    if not wanted:
        write_outcomes(TARGET, outcomes)
        console.print(f"written to {TARGET}")
    return int(any(outcome.status == "fail" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
