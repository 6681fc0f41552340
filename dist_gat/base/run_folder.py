"""The folder of a run: one run at a time, a clean start, and nothing lost that a run did not write.

A folder is that of a run from its first lock on. A text that a run wrote names its own digest, so that one which
somebody has changed is told from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import write_text

LOCK_FILE, CONFIG_FILE = "lock", "config.yaml"
HOLDER = "process "
HEAD = "# dist-gat wrote this file, and may write it again: keep a recipe of your own elsewhere. SHA-256 of the rest: "


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
        file.write(f"{HOLDER}{os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def refuse_foreign_run(folder: Path, names: Sequence[str]) -> None:
    """Raise `ConfigError` where a run would replace or mix with what no run has written.

    names: what else a run writes; after the first lock of a run these are its own.
    """
    taken = [] if _starts_with(folder / LOCK_FILE, HOLDER) else [LOCK_FILE, *names]
    found = [folder / name for name in taken if (folder / name).exists()]
    if found:
        raise ConfigError(
            f"run: {', '.join(map(str, found))}: not written by a run of `dist-gat train`, which would replace it; set "
            "run=FOLDER to another folder, or move this away"
        )
    refuse_foreign_text(folder / CONFIG_FILE, "a run of `dist-gat train`")


def write_own_text(path: Path, text: str) -> None:
    """Write a YAML file that `refuse_foreign_text` knows again."""
    write_text(path, f"{HEAD}{_digest(text)}\n{text}")


def refuse_foreign_text(path: Path, writer: str) -> None:
    """Raise `ConfigError` where there is a file, and not as `write_own_text` left it."""
    try:
        head, _, text = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        head = text = ""
    if head != HEAD + _digest(text):
        raise ConfigError(
            f"run: {path}: not written by {writer}, which would replace it; set run=FOLDER to another folder, or move "
            "this away"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _starts_with(path: Path, text: str) -> bool:
    try:
        return path.read_bytes()[: len(text)] == text.encode()
    except OSError:
        return False


def clear_run(folder: Path, names: Sequence[str]) -> None:
    """Delete the files and folders that an earlier run left, which are named by pattern. Others stay."""
    for path in [path for name in names for path in folder.glob(name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep_run(folder: Path) -> None:
    """Delete the temporary folders that a killed run left half written."""
    for path in [*folder.glob("checkpoints/.step-*"), *folder.glob(".model.tmp*"), *folder.glob(".model.old-*")]:
        shutil.rmtree(path, ignore_errors=True)
