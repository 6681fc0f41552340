"""A run at a URL: its small files, of which a host that works on the run has a copy in a folder, and its claim.

Checkpoints and the saved model have manifests, and don't go through here. Small files are logs and results: they are
uploaded one by one, so a reader may find those of different moments.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.fetched_folder import ADDRESS
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.run_folder import CONFIG_FILE, HOLDER, LOCK_FILE
from dist_gat.base.running_beside import running_beside
from dist_gat.base.storage import write_text

# what logs and verbs write into the folder of a run, beside what has a manifest; a test holds it to their names
RUN_FILES = (CONFIG_FILE, "progress.jsonl", "evaluation.json", "compare.json", "tensorboard", "profile")
CLAIM_FILE = "claim"  # on the host that holds the run, the token of its claim
BEAT_S, BEATS = 15.0, 4  # a claim that is not renewed for so many beats is nobody's
SETTLE_S = 1.0


def fetch_run_files(remote: RemoteFolder, folder: Path, kept: Sequence[str] = RUN_FILES) -> None:
    """Make the small files of a run in `folder` those at its URL. kept: names of files and folders. Raises
    `StorageError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ADDRESS, remote.url)
    for name in kept:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    for name in remote.names():
        if _is_kept(name, kept):
            if ".." in Path(name).parts:
                raise StorageError(f"{remote.at(name)}: expected names of files inside the run; delete it there")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            remote.get(name, folder / name)


class SentFiles:
    """Uploads the small files of a run's folder that changed since the last call."""

    def __init__(self, folder: Path, remote: RemoteFolder, kept: Sequence[str] = RUN_FILES) -> None:
        self.folder, self.remote, self.kept = folder, remote, kept
        self.sent: dict[str, tuple[int, int]] = {}

    def send(self) -> None:
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()):
            name, found = path.relative_to(self.folder).as_posix(), path.stat()
            version = found.st_size, found.st_mtime_ns
            if _is_kept(name, self.kept) and self.sent.get(name) != version:
                self.remote.put(path, name)
                self.sent[name] = version


def _is_kept(name: str, kept: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in kept)


@contextmanager
def claim_run(
    remote: RemoteFolder, folder: Path, own: Sequence[str], progress: Callable[[str], None], beat_s: float = BEAT_S
) -> Iterator[None]:
    """Hold the run at a URL for this process. Raises `StorageError` where another holds
    it, `ConfigError` where there are files of names that a run writes, `own`, and no run has written any.

    The object `lock` says who has it, and is renewed while the block runs. Stores have no locks: a claim that nobody
    renews for some beats is taken over, at once where it is that of a process of this host, which `folder`, whose lock
    this process holds, tells.
    """
    _refuse_foreign(remote, own)
    mine = folder / CLAIM_FILE
    before = _read_claim(remote)
    if before and not before.get("ended") and not is_fetched(remote, folder):
        _wait_for_end(remote, before, progress, beat_s)
    token = secrets.token_hex(16)
    write_text(mine, token)
    _write_claim(remote, token, 0)
    time.sleep(min(SETTLE_S, beat_s))
    found = _read_claim(remote)
    if found.get("token") != token:
        raise StorageError(f"{remote.url}: {found.get('holder')} took this run at the same time; wait for it")
    lost: list[str] = []

    def renew(done: threading.Event) -> None:
        beat = 0
        while not done.wait(beat_s):
            with suppress(StorageError):  # the next beat tries again
                found = _read_claim(remote)
                if found.get("token") != token:
                    lost.append(str(found.get("holder")))
                    return
                beat += 1
                _write_claim(remote, token, beat)

    try:
        with running_beside(renew):
            yield
    finally:
        if not lost:
            with suppress(StorageError):  # then it ends as that of a killed process does
                _write_claim(remote, token, -1)
    if lost:
        raise StorageError(
            f"{remote.url}: {lost[0]} took this run over, as its claim was not renewed in time; what is there may be "
            "of both: go on with checkpoint.resume=previous, or begin anew with checkpoint.resume=restart"
        )


def is_fetched(remote: RemoteFolder, folder: Path) -> bool:
    """Whether the process that holds the run is of this host, and has its small files in `folder` then."""
    mine = folder / CLAIM_FILE
    return mine.is_file() and mine.read_text(encoding="utf-8") == _read_claim(remote).get("token")


def _refuse_foreign(remote: RemoteFolder, own: Sequence[str]) -> None:
    if remote.read(LOCK_FILE) is not None:
        return
    names = remote.names()
    if found := [name for name in names if _is_kept(name, own)]:
        raise ConfigError(
            f"run: {remote.at(found[0])}: not written by a run of `dist-gat train`, which would replace it; set run to "
            "another place, or move this away"
        )


def _wait_for_end(
    remote: RemoteFolder, before: dict[str, Any], progress: Callable[[str], None], beat_s: float
) -> None:  # fmt: skip
    """Return when a claim has ended, or was not renewed for some beats; the store's clock is not needed."""
    progress(f"{remote.url} is claimed by {before.get('holder')}: waiting {BEATS * beat_s:.0f} s for a sign of it")
    until = time.monotonic() + BEATS * beat_s
    while time.monotonic() < until:
        time.sleep(beat_s / 3)
        now = _read_claim(remote)
        if now.get("ended"):
            return
        if now != before:
            raise StorageError(
                f"{remote.url}: another run holds this place ({now.get('holder')}); wait for it, stop it, or set run "
                "to another place"
            )


def _read_claim(remote: RemoteFolder) -> dict[str, Any]:
    """holder, token, beat, ended; nothing where there is no claim."""
    holder, _, text = (remote.read(LOCK_FILE) or b"").decode("utf-8", "replace").partition("\n")
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return {"holder": holder, **found}
    return {"holder": holder} if holder else {}


def _write_claim(remote: RemoteFolder, token: str, beat: int) -> None:
    """beat: -1 at the end."""
    text = json.dumps({"token": token, "beat": beat, "ended": beat < 0})
    remote.write(LOCK_FILE, f"{HOLDER}{os.getpid()} on {socket.gethostname()}\n{text}\n".encode())
