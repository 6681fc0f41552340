"""The folder of a run: one run at a time, and a clean start."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dist_gat.base.errors import StorageError

LOCK_FILE = "lock"


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the run folder for one run. Raises `StorageError` where another run holds it.

    The system frees the lock when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise StorageError(
                f"{folder}: another run holds this folder ({file.read().strip() or 'unknown'}); wait for it, stop "
                "it, or set run=FOLDER"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def clear_run(folder: Path, names: Sequence[str]) -> None:
    """Delete the named files and folders that an earlier run left. Others stay."""
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep_run(folder: Path) -> None:
    """Delete the temporary folders that a killed run left half written."""
    for path in [*folder.glob("checkpoints/.*"), *folder.glob(".model.*")]:
        shutil.rmtree(path, ignore_errors=True)
