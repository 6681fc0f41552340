"""`shared_folder`: a folder that all ranks write into, and that gets its name only when all of them are done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_gat.exchange.channel import Channel
from dist_gat.storage import replace_folder, write_manifest


@contextmanager
def shared_folder(target: Path, channel: Channel, kind: str, version: int, content: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to every rank; then rank 0 writes the manifest and renames it to `target`.

    What stood at `target` is replaced. Collective; the ranks share the file system.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    if channel.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    channel.barrier()
    yield temporary
    channel.barrier()
    if channel.rank == 0:
        write_manifest(temporary, kind, version, content)
        replace_folder(temporary, target)
    channel.barrier()
