"""`shared_folder`: a folder that all ranks write into, and that gets its name only when all of them are done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_gat.exchange.agreement import together
from dist_gat.exchange.channel import Channel
from dist_gat.storage import describe_files, flush_folder, replace_folder, write_manifest


@contextmanager
def shared_folder(target: Path, channel: Channel, kind: str, version: int, content: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder to each rank; then what all ranks wrote there becomes `target`, under one manifest.

    Every rank brings its files to the disk and describes them; rank 0 joins the descriptions and renames the
    folder. What stood at `target` is replaced. Where any rank fails, all raise `StorageError` with that rank's
    error, `target` is as it was and the temporary folder is gone. Collective; the ranks share the file system,
    and write different files.
    """
    temporary = temporary_of(target)
    own = temporary / f".rank-{channel.rank}"
    what = f"{target}: can't be written, nothing was changed"
    try:
        with together(channel, what):
            if channel.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
        with together(channel, what):
            own.mkdir()
            yield own
            flush_folder(own)
            hand_over(own, temporary, channel.rank)
        with together(channel, what):
            if channel.rank == 0:
                files = take_over(temporary, channel.world_size)
                write_manifest(temporary, kind, version, content, files)
                flush_folder(temporary)
                replace_folder(temporary, target)
    finally:
        if channel.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)


def temporary_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")


def hand_over(own: Path, temporary: Path, rank: int) -> None:
    """Move a rank's files from its own folder into the common one, and leave their description for rank 0."""
    files = describe_files(own)
    for name in files:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).rename(temporary / name)
    shutil.rmtree(own)
    description_of(temporary, rank).write_text(json.dumps(files))


def take_over(temporary: Path, world_size: int) -> dict[str, Any]:
    """The descriptions of all ranks in one, sorted by name; they are deleted here."""
    files: dict[str, Any] = {}
    for rank in range(world_size):
        path = description_of(temporary, rank)
        described = json.loads(path.read_text())
        assert not files.keys() & described.keys(), "two ranks wrote the same file"
        files |= described
        path.unlink()
    return dict(sorted(files.items()))


def description_of(temporary: Path, rank: int) -> Path:
    return temporary / f".rank-{rank}.json"
