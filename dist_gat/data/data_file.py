"""`DataFile`: one input file, here or at an address, and `find_files`, which takes names, folders and patterns."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa

from dist_gat.base.errors import DataError, first_line

CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
# of what an archive unpacks to: a table of text rarely shrinks to a hundredth
MOST_UNPACKED = 300
UNPACKED_ANYWAY = 1 << 30  # bytes
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """A file that exists. `name` is its path, or its address with `://`."""

    name: str
    size: int  # bytes
    folders: dict[str, str] = field(default_factory=dict)  # columns that its folders name: day=2024-01-01
    read_bytes: list[int] = field(default_factory=lambda: [0], compare=False)  # so far, for the progress

    @property
    def path(self) -> Path:
        """For its name's parts, also of an address."""
        return Path(self.name)

    @property
    def is_local(self) -> bool:
        return "://" not in self.name

    @property
    def codec(self) -> str | None:
        """What its suffix says that it is compressed with."""
        return CODECS.get(self.path.suffix.lower())

    @property
    def suffix(self) -> str:
        """In lower case, without that of the compression."""
        return Path(self.path.stem if self.codec else self.path.name).suffix.lower()

    def open(self) -> BinaryIO:
        """Raises `OSError`."""
        if self.is_local:
            return open(self.name, "rb")
        opened: Any = fsspec.open(self.name, "rb").open()
        return opened


class Unpacked:
    """The bytes of a file after its compression, as a stream; an archive that is far larger inside is a `DataError`."""

    def __init__(self, file: DataFile) -> None:
        self.file, self.raw, self.num_bytes, self.closed = file, file.open(), 0, False
        self.stream: Any = (
            pa.CompressedInputStream(pa.PythonFile(self.raw, "r"), file.codec) if file.codec else self.raw
        )

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        chunk: bytes = self.stream.read(size)
        self.num_bytes += len(chunk)
        self.file.read_bytes[0] = self.raw.tell()
        limit = max(UNPACKED_ANYWAY, MOST_UNPACKED * self.file.size)
        if self.file.codec and self.num_bytes > limit:
            raise DataError(
                f"{self.file.name}: unpacks to more than {MOST_UNPACKED} times its size, which a table rarely does; "
                "nothing of it is kept; unpack it yourself if it is what you expect"
            )
        return chunk

    def close(self) -> None:
        self.closed = True
        self.stream.close()
        self.raw.close()


def find_files(names: str | Sequence[str], base: str, setting: str) -> list[DataFile]:
    """The files that names stand for, each once, sorted by their names, so that the order of the list doesn't matter.

    names: each a file, a folder, all of whose files count but hidden ones, a pattern with * ? [ ] or **, or an address
    as s3://bucket/folder/*.parquet. base: the folder of relative names. setting: their key, for the message.
    """
    found: dict[str, DataFile] = {}
    for name in [names] if isinstance(names, str) else names:
        for file in _remote(name) if "://" in name else _local(name, base, setting):
            found[file.name] = file
    return [found[name] for name in sorted(found)]


def _local(name: str, base: str, setting: str) -> list[DataFile]:
    path = os.path.join(base, name)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as err:
        raise DataError(f"{path}: can't be read: {err}; check the file's name and its permissions") from None
    if mode is not None and stat.S_ISREG(mode):
        return [_described(path, {})]
    if mode is not None and stat.S_ISDIR(mode):
        inside = sorted(glob.glob(os.path.join(glob.escape(path), "**"), recursive=True))
        files = [entry for entry in inside if os.path.isfile(entry) and not Path(entry).name.startswith(("_", "."))]
        if not files:
            raise DataError(f"{path}: the folder has no files; expected those of a table; check {setting}")
        return [_described(entry, folders_of(os.path.relpath(entry, path))) for entry in files]
    if mode is not None:
        raise DataError(f"{path}: is no regular file; check data.path and {setting}")
    root = Path(path)
    while any(mark in str(root) for mark in "*?["):
        root = root.parent
    matches = [entry for entry in sorted(glob.glob(path, recursive=True)) if os.path.isfile(entry)]
    if not matches:
        found = "no file has a name like this" if root != Path(path) else "no such file"
        raise DataError(f"{path}: {found}; check data.path and the file names in the data section")
    return [_described(entry, folders_of(os.path.relpath(entry, root))) for entry in matches]


def folders_of(name: str) -> dict[str, str]:
    """The columns in a relative path of folders: `day=1/x.csv` has day."""
    parts = [part.partition("=") for part in PurePosixPath(name).parts[:-1]]
    return {key: value for key, equals, value in parts if equals}


def _described(path: str, folders: dict[str, str]) -> DataFile:
    return DataFile(path, os.stat(path).st_size, folders)


def _remote(name: str) -> list[DataFile]:
    scheme = name.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(name)
        if any(mark in path for mark in "*?["):
            paths = system.glob(path)
        elif system.isdir(path):
            paths = system.find(path)
        else:
            paths = [path]
        shown = [entry for entry in paths if not PurePosixPath(entry).name.startswith(("_", "."))]
        if not shown:
            raise FileNotFoundError("no file has a name like this")
        if scheme == "file":
            return [_described(entry, {}) for entry in shown]
        return [
            DataFile(system.unstrip_protocol(entry), int(system.size(entry) or 0), folders_of(entry)) for entry in shown
        ]
    except ImportError as err:
        raise DataError(
            f"{name}: reading {scheme}:// needs another package: {first_line(err)}; install it, for example "
            "`pip install s3fs` for s3://, `gcsfs` for gs://, `aiohttp` for https://"
        ) from None
    except (OSError, ValueError) as err:
        raise DataError(
            f"{name}: can't be read: {first_line(err) or type(err).__name__}; expected a file, a folder or a "
            "pattern at this address; check it and your credentials"
        ) from None
