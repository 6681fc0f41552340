"""`CheckpointStore`: the checkpoints of a run, `step-00000120`, by step: in the run folder, or at a URL.

A folder without its manifest is no checkpoint. In a file system, one rename at the end gives the folder its name; in an
object store, which has no rename, the manifest is written last.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.storage import MANIFEST, remove_folder
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.shared_folder import shared_folder, shared_upload

CHECKPOINTS_FOLDER = "checkpoints"
DAMAGED = "damaged-" + MANIFEST


class CheckpointStore(ABC):
    """Base of both kinds. root: the place that messages name. is_local: reading copies nothing."""

    root: Path | str
    is_local: bool

    def name(self, step: int) -> str:
        return f"{self.root}/{folder_name(step)}"

    @abstractmethod
    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, the newest first."""

    @abstractmethod
    def writing(self, step: int, channel: Channel, kind: str, version: int, content: dict[str, Any]) -> Any:
        """A context with an empty folder for this rank; when it ends, what all ranks wrote is committed as one.

        Collective. Raises `StorageError` on all ranks where any of them fails, and commits nothing then.
        """

    @abstractmethod
    def reading(self, step: int, names: Sequence[str]) -> Any:
        """A context with a local folder that has the manifest and the named files, as far as they exist."""

    @abstractmethod
    def remove(self, step: int) -> None:
        """Delete a checkpoint; a crash in the middle leaves none rather than half of it."""

    @abstractmethod
    def set_aside(self, step: int) -> None:
        """Take a damaged checkpoint out of `steps`; its files stay for inspection."""

    def clear(self) -> None:
        """Delete all checkpoints, and what is left of those that were set aside or never finished."""
        for step in self.steps():
            self.remove(step)
        self.remove_leftovers()

    @abstractmethod
    def remove_leftovers(self) -> None:
        """Delete the folders of checkpoints that are none."""

    def prune(self, keep: int, best: int | None) -> None:
        """Delete all but the newest `keep` and the best."""
        for step in self.steps()[keep:]:
            if step != best:
                self.remove(step)


class FolderCheckpoints(CheckpointStore):
    """A folder that all ranks share."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root: Path = root

    def folder(self, step: int) -> Path:
        return self.root / folder_name(step)

    def steps(self) -> list[int]:
        return sorted_steps(path.parent.name for path in self.root.glob(f"step-*/{MANIFEST}"))

    def writing(self, step: int, channel: Channel, kind: str, version: int, content: dict[str, Any]) -> Any:
        return shared_folder(self.folder(step), channel, kind, version, content)

    @contextmanager
    def reading(self, step: int, names: Sequence[str]) -> Iterator[Path]:
        yield self.folder(step)

    def remove(self, step: int) -> None:
        remove_folder(self.folder(step))

    def set_aside(self, step: int) -> None:
        (self.folder(step) / MANIFEST).rename(self.folder(step) / DAMAGED)

    def remove_leftovers(self) -> None:
        for path in [*self.root.glob("step-*"), *self.root.glob(".step-*")]:
            shutil.rmtree(path, ignore_errors=True)


class UrlCheckpoints(CheckpointStore):
    """A folder at a URL that fsspec understands: s3://, gs://, hdfs://, file://, abfs:// …"""

    is_local = False

    def __init__(self, url: str, setting: str = "checkpoint.url") -> None:
        self.remote = RemoteFolder(url, setting)
        self.root: str = self.remote.url

    def steps(self) -> list[int]:
        paths = [Path(name) for name in self.remote.names()]
        return sorted_steps(path.parent.name for path in paths if path.name == MANIFEST)

    def writing(self, step: int, channel: Channel, kind: str, version: int, content: dict[str, Any]) -> Any:
        return shared_upload(self.name(step), channel, kind, version, content)

    @contextmanager
    def reading(self, step: int, names: Sequence[str]) -> Iterator[Path]:
        there = {*self.remote.names(folder_name(step))}
        with tempfile.TemporaryDirectory(prefix="dist-gat-") as staging:
            for name in (MANIFEST, *names):
                source, target = f"{folder_name(step)}/{name}", Path(staging, name)
                if source in there:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self.remote.get(source, target)
            yield Path(staging)

    def remove(self, step: int) -> None:
        self.remote.remove_folder(folder_name(step), first=MANIFEST)

    def set_aside(self, step: int) -> None:
        content = self.remote.read(f"{folder_name(step)}/{MANIFEST}")
        if content is not None:
            self.remote.write(f"{folder_name(step)}/{DAMAGED}", content)
            self.remote.remove(f"{folder_name(step)}/{MANIFEST}")

    def remove_leftovers(self) -> None:
        for name in {name.partition("/")[0] for name in self.remote.names() if name.startswith("step-")}:
            self.remote.remove_folder(name)


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def sorted_steps(names: Iterable[str]) -> list[int]:
    """The steps of names like step-00000120, the newest first."""
    numbers = [name.removeprefix("step-") for name in names if name.startswith("step-")]
    return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)


def open_checkpoints(run_folder: Path, url: str | None) -> CheckpointStore:
    """url: in place of the folder, see `Config.checkpoint_url`."""
    return UrlCheckpoints(url) if url else FolderCheckpoints(run_folder / CHECKPOINTS_FOLDER)
