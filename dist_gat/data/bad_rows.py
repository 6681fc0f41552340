"""Rows that can't be used: an error that shows where they are, or dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dist_gat.base.errors import DataError

NUM_EXAMPLES = 3
MAX_SHOWN = 60  # characters of a value in a message


def shown(value: object) -> str:
    """A value of a file as messages quote it: on one line, and not long."""
    return _shorten(repr(value))


@dataclass(frozen=True)
class BadRows:
    """Rows of one file that share a fault."""

    found: str
    expected: str
    rows: np.ndarray  # int64 [count], row numbers in the file
    values: Sequence[str]  # what the first NUM_EXAMPLES of them hold

    @property
    def count(self) -> int:
        return len(self.rows)


def refuse_bad_rows(path: Path, counting: str, bad: Sequence[BadRows]) -> None:
    """Raise a `DataError` that shows the first bad rows of every kind, if there are any.

    `counting` says how the file's rows are numbered.
    """
    bad = [fault for fault in bad if fault.count]
    if not bad:
        return
    # rows with two faults count once; but repeated pairs of a LightGCN line, the only fault there, each count
    total = bad[0].count if len(bad) == 1 else len(np.unique(np.concatenate([fault.rows for fault in bad])))
    lines = [f"{path}: {total} bad {'row' if total == 1 else 'rows'} ({counting})"]
    for fault in bad:
        examples = ", ".join(
            f"row {row}: {_shorten(value)}" for row, value in zip(fault.rows, fault.values, strict=False)
        )
        more = ", ..." if fault.count > NUM_EXAMPLES else ""
        lines.append(f"  {fault.found}, {fault.count} times ({examples}{more}); expected {fault.expected}")
    lines.append("correct the file, or drop and count such rows with data.skip_bad_rows=true (--skip-bad-rows)")
    raise DataError("\n".join(lines))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
