"""`open_parts`: a folder of parts with its manifest, here or at a URL, and which of its files are of which part.

Of a part are all files below `parts/0000`, or `parts/0000.safetensors`; what is of no part all need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from dist_gat.base.addresses import is_url
from dist_gat.base.fetched_folder import fetch_folder
from dist_gat.base.storage import read_manifest, verify_files

OF_PART = re.compile(r"parts/(\d+)[/.]")


def open_parts(
    name: str | Path, kind: str, version: int, remedy: str, verify: bool, progress: Callable[[str], None],
    parts: Collection[int] | None, cache: Path | None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """The folder and its checked manifest. Of a URL this host fetches the files of these parts, of all where None, and
    those of no part. verify: the whole SHA-256 of what is here. Raises `StorageError`.
    """
    if is_url(name):

        def is_needed(file: str) -> bool:
            part = part_of(file)
            return part is None or parts is None or part in parts

        folder, only = fetch_folder(str(name), kind, version, remedy, is_needed, cache, verify, progress)
        return folder, read_manifest(folder, kind, version, remedy, only)
    folder = Path(name)
    manifest = read_manifest(folder, kind, version, remedy)
    if verify:
        verify_files(folder, manifest, remedy, progress)
    return folder, manifest


def part_of(name: str) -> int | None:
    """The part that a file is of; None of what all need."""
    found = OF_PART.match(name)
    return int(found[1]) if found else None


def files_by_part(names: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in names:
        part = part_of(name)
        if part is not None:
            found.setdefault(part, []).append(name)
    return found
