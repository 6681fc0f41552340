"""Compiled kernels by the content of their sources, for a test suite that runs in one clone after another.

numba keeps compiled kernels beside a file or by its path, and compiles anew when that file changes. It knows nothing of
the other files that a kernel takes functions and constants from, and of other clones with the same files. With
`NUMBA_CACHE_LOCATOR_CLASSES=dist_gat.kernels.compile_cache.ContentLocator` kernels are kept in the user's cache by the
content of their file and of all files of dist_gat that it imports. The suite's processes set it, and share the kernels.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import IndexDataCacheFile, _CacheLocator

ROOT = Path(__file__).parents[2]
# the names are those of absolute imports, which are the only ones here
IMPORT = re.compile(rb"^\s*(?:from\s+(dist_gat[\w.]*)\s+import\s+(.*)|import\s+(dist_gat[\w.]*))", re.MULTILINE)
MAX_AGE_S = 14 * 24 * 3600  # without use


def cache_root() -> Path:
    """Where compiled kernels are: NUMBA_CACHE_DIR, or a folder of the user's cache."""
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dist_gat", "numba")


def imported_files(content: bytes, root: Path) -> set[Path]:
    """The files of dist_gat that a source names in its imports, anywhere; of a folder all that are in it."""
    found = set()
    for base, names, module in IMPORT.findall(content):
        place = root.joinpath(*(base or module).decode().split("."))
        listed = re.findall(r"\w+", names.decode())
        if place.is_dir():
            modules = {path for name in listed if (path := place / f"{name}.py").is_file()}
            # names on the lines that follow, or what __init__.py defines
            found |= modules or set(place.glob("*.py"))
        else:
            found.add(place.with_suffix(".py"))
    return {path for path in found if path.is_file()}


def sources_of(file: Path, root: Path = ROOT) -> list[Path]:
    """A file, and all files of dist_gat that it imports directly or through others."""
    seen, waiting = {file}, [file]
    while waiting:
        new = imported_files(_read(waiting.pop()), root) - seen
        seen |= new
        waiting += new
    return sorted(seen)


def digest_of(file: Path, root: Path = ROOT) -> str:
    """Of what compiles and of what is compiled, wherever the files are."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version)).encode())
    for path in sources_of(file, root):
        digest.update(path.name.encode() + hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()[:24]


@functools.cache
def _read(path: Path) -> bytes:
    # as the process imported it, more or less: a file that changes later is another process's
    return path.read_bytes()


@functools.cache
def folder_of(file: Path) -> Path:
    """Where the compiled kernels of a file are; what it has been without for long goes when a new folder comes."""
    folder = cache_root() / f"{file.stem}-{digest_of(file)}"
    if folder.is_dir():
        os.utime(folder)
        return folder
    for other in cache_root().glob("*-" + "[0-9a-f]" * 24):
        try:
            if time.time() - other.stat().st_mtime > MAX_AGE_S:
                shutil.rmtree(other, ignore_errors=True)
        except FileNotFoundError:
            continue
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class ContentLocator(_CacheLocator):
    """See the top of the file; numba makes one for each cached function."""

    def __init__(self, function: Any, file: Path) -> None:
        self._py_file = str(file)
        self._line, self._folder = function.__code__.co_firstlineno, folder_of(file)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> ContentLocator | None:
        if not os.path.isfile(py_file):
            return None
        try:
            return cls(py_func, Path(py_file).resolve())
        except OSError:
            return None

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """The folder's name says all."""
        return self._folder.name

    def get_disambiguator(self) -> str:
        return str(self._line)


def save_alone(self: Any, key: Any, data: Any, save: Any = IndexDataCacheFile.save) -> None:
    """One process at a time: two that save at once would give two kernels one file, and lose one from the index."""
    with open(f"{self._index_path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        save(self, key, data)


IndexDataCacheFile.save = save_alone
