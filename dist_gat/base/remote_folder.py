"""`RemoteFolder`: a folder in an object store, or wherever else fsspec opens a URL: s3://, gs://, abfs://, hdfs://, …

Every object is written whole or not at all, but there is no rename and no lock: who writes several objects that belong
together writes their manifest last, and who reads them checks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from dist_gat.base.errors import ConfigError, StorageError, first_line

# what opens a kind of URL, where fsspec alone does not
NEEDED = {"s3": "dist-gat[s3]", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
REMEDY = "check the address, the network, and the credentials that this host has for the store"


class RemoteFolder:
    """Names of files are relative to the folder, with `/`. All methods raise `StorageError` with the file's URL."""

    def __init__(self, url: str, setting: str = "") -> None:
        """setting: the key that leads to `url`, for the message. Raises `ConfigError` for a URL that nothing opens."""
        self.url = url.rstrip("/")
        given = f"{setting}={url}" if setting else url
        kind = url.partition("://")[0]
        try:
            self.files, self.path = fsspec.core.url_to_fs(self.url, **({"auto_mkdir": True} if kind == "file" else {}))
        except ImportError as err:
            needed = f"`pip install '{NEEDED[kind]}'`" if kind in NEEDED else "install what fsspec needs for it"
            raise ConfigError(f"{given}: {kind}:// can't be opened ({err}): {needed}") from None
        except ValueError as err:
            raise ConfigError(f"{given}: {err}; expected s3://bucket/folder, for example") from None

    def at(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def below(self, name: str) -> RemoteFolder:
        return RemoteFolder(self.at(name))

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        with self._told("read", name):
            try:
                found: bytes = self.files.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return found

    def write(self, name: str, content: bytes) -> None:
        """A small file; what stood there is replaced at once."""
        with self._told("written", name):
            self.files.pipe_file(self._path(name), content)

    def get(self, name: str, target: Path) -> None:
        """Copy a file here. Raises `StorageError` where there is none."""
        with self._told("read", name):
            try:
                self.files.get_file(self._path(name), str(target))
            except FileNotFoundError:
                raise StorageError(f"{self.at(name)}: not found") from None

    def put(self, source: Path, name: str) -> None:
        """Copy a file there; what stood there is replaced."""
        with self._told("written", name):
            self.files.put_file(str(source), self._path(name))

    def names(self, folder: str = "") -> list[str]:
        """The files below a folder, at any depth, sorted."""
        with self._told("listed", folder):
            self.files.invalidate_cache()
            try:
                found = self.files.find(self._path(folder))
            except FileNotFoundError:
                return []
        start = len(self.files._strip_protocol(self.path).strip("/")) + 1
        return sorted(name.strip("/")[start:] for name in found)

    def remove(self, *names: str) -> None:
        """Delete files, those that are there."""
        for name in names:
            with self._told("deleted", name):
                try:
                    self.files.rm_file(self._path(name))
                except FileNotFoundError:
                    continue

    def remove_folder(self, folder: str, first: str = "") -> None:
        """Delete all files below a folder. first: the one whose absence says that the others don't count."""
        if first:
            self.remove(f"{folder}/{first}" if folder else first)
        self.remove(*self.names(folder))
        with self._told("deleted", folder):
            # an object store has no folders that could stay
            if self.files.isdir(self._path(folder)):
                self.files.rm(self._path(folder), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    @contextmanager
    def _told(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as err:  # each store has errors of its own, and they have no base in common
            raise StorageError(f"{self.at(name)}: can't be {what}: {reason(err)}; {REMEDY}") from err


def reason(err: Any) -> str:
    """What a store says; some of its errors say nothing but their name."""
    return first_line(err) or type(err).__name__
