"""Rows that can't be used: an error that shows where they are, or dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dist_gat.base.errors import DataError
from dist_gat.data.source import Source
from dist_gat.data.text_table import NUM_EXAMPLES, shorten


@dataclass(frozen=True)
class BadRows:
    """Rows of one table that share a fault. examples: the keys of the first, and what they hold."""

    found: str
    expected: str
    count: int
    examples: Sequence[tuple[int, str]]


def refuse_bad_rows(source: Source, total: int, bad: Sequence[BadRows], remedy: str) -> None:
    """Raise a `DataError` that shows the first bad rows of every kind, if there are any. total: rows with two faults
    count once."""
    bad = [fault for fault in bad if fault.count]
    if not bad:
        return
    lines = [f"{source.name}: {total} bad {'row' if total == 1 else 'rows'} ({source.counting})"]
    for fault in bad:
        examples = ", ".join(f"{where(source, key)}: {shorten(value)}" for key, value in fault.examples)
        more = ", ..." if fault.count > NUM_EXAMPLES else ""
        lines.append(f"  {fault.found}, {fault.count} times ({examples}{more}); expected {fault.expected}")
    raise DataError("\n".join([*lines, remedy]))


def malformed_rows(source: Source) -> BadRows:
    """The rows of a text that its last reading has left out, for their number of fields."""
    found = source.malformed
    examples = [
        (source.key(number, row), text)
        for number, rows in found.items()
        for row, text in zip(rows.rows, rows.texts, strict=False)
    ]
    num_fields = next((rows.num_fields for rows in found.values() if rows.num_fields), 0)
    count = sum(len(rows.rows) for rows in found.values())
    return BadRows("wrong number of fields", f"{num_fields} as in the header", count, examples)


def where(source: Source, key: int) -> str:
    name, row = source.located(key)
    return f"row {row}" if len(source.files) == 1 else f"row {row} of {name}"
