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

import fsspec
import pyarrow as pa
from pyarrow import fs

from dist_gat.base.errors import ConfigError
from dist_gat.base.storage import MANIFEST, describe_files, remove_folder, write_manifest
from dist_gat.config.sections import CheckpointConfig
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import together
from dist_gat.exchange.shared_folder import join_descriptions, shared_folder

CHECKPOINTS_FOLDER = "checkpoints"
COPY_BYTES = 1 << 24
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
    """A folder at a URL that pyarrow or fsspec understands: s3://, gs://, hdfs://, file://, abfs:// …"""

    is_local = False

    def __init__(self, url: str) -> None:
        self.root: str = url.rstrip("/")
        self.files, self.path = open_url(url)

    def at(self, step: int) -> str:
        return f"{self.path}/{folder_name(step)}"

    def steps(self) -> list[int]:
        listing = self.files.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True))
        paths = [Path(info.path) for info in listing if info.is_file]
        return sorted_steps(path.parent.name for path in paths if path.name == MANIFEST)

    @contextmanager
    def writing(self, step: int, channel: Channel, kind: str, version: int, content: dict[str, Any]) -> Iterator[Path]:
        """Write to a local folder, then copy to the URL: the files of all ranks first, and the manifest last."""
        what = f"{self.name(step)}: can't be written, no checkpoint was added"
        files: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="dist-gat-") as staging:
            own = Path(staging)
            with together(channel, what):
                yield own
                files = describe_files(own)
                for name in files:
                    self.copy_there(own / name, f"{self.at(step)}/{name}")
            files = join_descriptions(files, channel)
            with together(channel, what):
                if channel.rank == 0:
                    write_manifest(own, kind, version, content, files)
                    self.copy_there(own / MANIFEST, f"{self.at(step)}/{MANIFEST}")

    def copy_there(self, source: Path, target: str) -> None:
        self.files.create_dir(target.rpartition("/")[0])
        with source.open("rb") as read, self.files.open_output_stream(target) as write:
            shutil.copyfileobj(read, write, COPY_BYTES)

    @contextmanager
    def reading(self, step: int, names: Sequence[str]) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="dist-gat-") as staging:
            for name in (MANIFEST, *names):
                source, target = f"{self.at(step)}/{name}", Path(staging, name)
                if self.files.get_file_info(source).type == fs.FileType.File:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with self.files.open_input_stream(source) as read, target.open("wb") as write:
                        shutil.copyfileobj(read, write, COPY_BYTES)
            yield Path(staging)

    def remove(self, step: int) -> None:
        self.files.delete_file(f"{self.at(step)}/{MANIFEST}")
        self.files.delete_dir(self.at(step))

    def set_aside(self, step: int) -> None:
        self.files.move(f"{self.at(step)}/{MANIFEST}", f"{self.at(step)}/{DAMAGED}")

    def remove_leftovers(self) -> None:
        for info in self.files.get_file_info(fs.FileSelector(self.path, allow_not_found=True)):
            if info.type == fs.FileType.Directory and info.base_name.startswith("step-"):
                self.files.delete_dir(info.path)


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def sorted_steps(names: Iterable[str]) -> list[int]:
    """The steps of names like step-00000120, the newest first."""
    numbers = [name.removeprefix("step-") for name in names if name.startswith("step-")]
    return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)


def open_url(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL and the path in it. Raises `ConfigError`."""
    try:
        return fs.FileSystem.from_uri(url)
    except (ValueError, pa.ArrowInvalid, OSError):
        # pyarrow itself does not know this kind of URL
        try:
            found, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as err:
            raise ConfigError(f"checkpoint.url={url}: {err}; expected s3://bucket/folder, for example") from None
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def open_checkpoints(run_folder: Path, config: CheckpointConfig) -> CheckpointStore:
    return UrlCheckpoints(config.url) if config.url else FolderCheckpoints(run_folder / CHECKPOINTS_FOLDER)
