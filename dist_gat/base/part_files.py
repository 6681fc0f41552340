"""Which files of a folder of parts are of which part: all below `parts/0000`, or `parts/0000.safetensors`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

OF_PART = re.compile(r"parts/(\d+)[/.]")


def part_of(name: str) -> int | None:
    """The part that a file is of; None of what all need."""
    found = OF_PART.match(name)
    return int(found[1]) if found else None


def is_needed(name: str, parts: Collection[int] | None) -> bool:
    """Whether who reads these parts, or all of them where None, reads the file."""
    part = part_of(name)
    return part is None or parts is None or part in parts


def files_by_part(names: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in names:
        part = part_of(name)
        if part is not None:
            found.setdefault(part, []).append(name)
    return found
