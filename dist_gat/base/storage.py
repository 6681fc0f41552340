"""Files that are either whole or not there: atomic folders, npy arrays, JSON manifests with SHA-256.

Nothing here reads or writes pickle. A folder gets its final name in one rename, after its manifest. A folder that
is read may come from anybody: names in its manifest stay below it, and so does what its links lead to.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dist_gat.base.errors import ConfigError, StorageError

MANIFEST = "manifest.json"
END_BYTES = 64 * 1024  # at each end of a file, for a digest that costs the same whatever its size
DIGEST_THREADS = 8
LEFT_AFTER_S = 3600.0


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `target` when the block succeeds, and vanishes when it fails.

    An existing `target` is replaced only on success. Of several at once the last one stays.
    """
    target = Path(os.path.abspath(target))  # `.` has no name to put a temporary one beside
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target, "tmp")
    temporary = _beside(target, "tmp")
    temporary.mkdir()
    try:
        with _held(temporary):
            yield temporary
            flush_folder(temporary)
            replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sweep(target, "old")


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield the name of an empty temporary file that becomes `target` when the block succeeds, and vanishes when it
    fails.

    An existing `target` is replaced only on success. Of several at once the last one stays.
    """
    _sweep(target, "tmp")
    temporary = _beside(target, "tmp")
    temporary.touch(exist_ok=False)
    try:
        with _held(temporary):
            yield temporary
            flush_file(temporary)
            temporary.replace(target)
            flush_file(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(source: Path, target: Path) -> None:
    """Give `source` the name `target`; what stood there goes away after the rename.

    A symbolic link at `target` is replaced too; what it leads to stays as it is.
    """
    while True:
        old = _beside(target, "old")
        with suppress(FileNotFoundError):
            target.rename(old)
        try:
            source.rename(target)
        except OSError as err:
            if err.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another one came in between
                _remove(old)
                continue
            if old.exists() or old.is_symlink():
                old.rename(target)
            raise
        break
    flush_file(target.parent)
    _remove(old)


def remove_folder(folder: Path) -> None:
    """Delete a folder; a rename takes its name away first, so that a crash leaves no partial folder of that name."""
    doomed = _beside(folder, "old")
    folder.rename(doomed)
    _remove(doomed)


def _beside(target: Path, kind: str) -> Path:
    """A hidden name that nobody else has: processes of containers have the same IDs."""
    return target.with_name(f".{target.name}.{kind}-{secrets.token_hex(8)}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock on what is temporary; it goes away with the process that holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks; `_sweep` leaves everything there
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep(target: Path, kind: str) -> None:
    """Delete what killed processes left beside `target`: old enough, and nobody holds it."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.{kind}-*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime < LEFT_AFTER_S:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """fsync every file and folder below `folder`, and `folder` itself."""
    for path in sorted(folder.rglob("*")):
        flush_file(path)
    flush_file(folder)


def flush_file(path: Path) -> None:
    """fsync a file, or a folder without what is below it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_foreign_folder(target: Path, kind: str, setting: str, command: str) -> None:
    """Raise `ConfigError` where `target` holds something that `command` did not write and would replace.

    kind: the format in the manifests that it writes. setting: the key that leads to `target`, for the message.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        described, listed = manifest.get("format"), {MANIFEST, *manifest.get("files", ())}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        described, listed = None, set()
    if described != kind:
        raise ConfigError(
            f"{setting}: {target} was not written by `{command}`, which would replace it; "
            "choose another folder, or remove this one"
        )
    # what a file system or a desktop leaves is hidden
    files = (path.relative_to(target) for path in target.rglob("*") if not path.is_dir())
    more = [path for path in files if path.as_posix() not in listed and not path.name.startswith(".")]
    if more:
        raise ConfigError(
            f"{setting}: {target / min(more)} was not written by `{command}`, which would replace the folder; move "
            "it away, or choose another folder"
        )


def refuse_links_out(folder: Path) -> None:
    """Raise `StorageError` where a symbolic link below `folder` leads out of it. `folder` itself may be a link."""
    # os.walk passes over folders that vanish meanwhile, as old checkpoints of a running job do; Path.rglob raises
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in [*folders, *files]):
            if path.is_symlink() and not _is_inside(folder, path):
                raise StorageError(
                    f"{path}: this link leads to {os.path.realpath(path)}, out of {folder}; nothing is read or written "
                    "there: remove the link, or move the whole folder and set `run` to its new place"
                )


def _is_inside(folder: Path, path: Path) -> bool:
    # not Path.resolve: it raises where links lead in a circle
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def write_text(path: Path, text: str) -> None:
    """Write a small text file in one step: readers see the old or the new content, never a part."""
    temporary = _beside(path, "tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one npy array; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def open_array(path: Path, dtypes: Sequence[str], shape: tuple[int, ...] | None, remedy: str) -> np.ndarray:
    """Memory-map one npy array, read-only.

    dtypes: the names that its type may have. shape: None: of one dimension and any length. Raises `StorageError`, also
    for an array of Python objects, which would be unpickled.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as err:  # numpy tokenises and evaluates the header, so there is no list of what it raises
        raise StorageError(f"{path}: expected a readable npy array: {err}; {remedy}") from None
    is_array = isinstance(array, np.ndarray)  # np.load opens zip archives too
    found = f"{array.dtype.name} {list(array.shape)}" if is_array else "a zip archive"
    fits = is_array and (array.ndim == 1 if shape is None else array.shape == shape)
    if not fits or array.dtype.name not in dtypes:
        expected = "[n]" if shape is None else f"{list(shape)}"
        raise StorageError(f"{path}: expected {' or '.join(dtypes)} {expected}, found {found}; {remedy}")
    return array


def ends_of(path: Path) -> str:
    """SHA-256 of the first and the last `END_BYTES` of a file: finds a file in another's place, at constant cost."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(file.seek(0, os.SEEK_END) - END_BYTES, 0))
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Size and digests of a file."""
    return {"bytes": path.stat().st_size, "ends_sha256": ends_of(path), "sha256": sha256_of(path)}


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digests of every file below `folder`, by its name relative to the folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]
    names = [path.relative_to(folder).as_posix() for path in paths]
    with ThreadPoolExecutor(min(DIGEST_THREADS, os.cpu_count() or 1), "digest") as pool:
        return dict(zip(names, pool.map(describe_file, paths), strict=True))


def write_manifest(
    folder: Path, kind: str, version: int, content: dict[str, Any], files: dict[str, Any] | None = None
) -> None:
    """Write `folder/manifest.json`: the format, `content`, and `files`, by default a description of all below."""
    files = describe_files(folder) if files is None else files
    manifest = {"format": kind, "version": version, **content, "files": files}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))


def read_manifest(
    folder: Path, kind: str, version: int, remedy: str, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Read a manifest; check format, version and that every file, or `only` those named, has its size and ends.

    `remedy` tells the user which command makes the folder anew. Raises `StorageError`.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StorageError(f"{path}: not found; {remedy}") from None
    except (OSError, ValueError) as err:
        raise StorageError(f"{path}: not valid JSON ({err}); {remedy}") from None
    manifest = check_manifest(text, str(path), kind, version, remedy)
    for name, entry in manifest["files"].items():
        if only is None or name in only:
            _check_file(folder, name, entry, remedy)
    return manifest


def check_manifest(text: str | bytes, path: str, kind: str, version: int, remedy: str) -> dict[str, Any]:
    """The manifest in a text, whose format and version are checked. path: where it is, for the message."""
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise StorageError(f"{path}: not valid JSON ({err}); {remedy}") from None
    described = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if described != (kind, version):
        raise StorageError(f"{path}: expected format {kind} version {version}, found {described}; {remedy}")
    if not isinstance(manifest.get("files"), dict):
        raise StorageError(f"{path}: expected a list of files; {remedy}")
    return dict(manifest)


def _check_file(folder: Path, name: str, entry: Any, remedy: str) -> None:
    """Raise `StorageError` unless the file of a manifest's entry is inside `folder` with its size and ends."""
    if not isinstance(entry, dict) or not {"bytes", "ends_sha256", "sha256"} <= entry.keys():
        raise StorageError(f"{folder / MANIFEST}: {name!r} has no size and digests; {remedy}")
    plain = PurePosixPath(name)
    try:
        inside = not plain.is_absolute() and ".." not in plain.parts and _is_inside(folder, folder / name)
        size = (folder / name).stat().st_size if inside and (folder / name).is_file() else None
        ends = ends_of(folder / name) if size == entry["bytes"] else None
    except (OSError, ValueError) as err:  # no permission, or no name that a file system takes
        raise StorageError(f"{folder / MANIFEST}: the file {name!r} can't be read: {err}; {remedy}") from None
    if not inside:
        raise StorageError(f"{folder / MANIFEST}: expected files inside the folder, found {name!r}; {remedy}")
    if size != entry["bytes"]:
        found = "no file" if size is None else f"{size} bytes"
        raise StorageError(f"{folder / name}: expected {entry['bytes']} bytes, found {found}; {remedy}")
    if ends != entry["ends_sha256"]:
        raise StorageError(
            f"{folder / name}: another file of the same size: expected SHA-256 {entry['ends_sha256']} of its first and "
            f"last {END_BYTES // 1024} KiB, found {ends}; {remedy}"
        )


def verify_files(
    folder: Path, manifest: dict[str, Any], remedy: str, progress: Callable[[str], None] = lambda message: None
) -> None:
    """Check the SHA-256 of every file of a manifest that `read_manifest` gave. Raises `StorageError`."""
    files = manifest["files"]
    size = sum(entry["bytes"] for entry in files.values())
    progress(f"checking the SHA-256 of {len(files):,} files, {size / 2**30:.3g} GiB, in {folder}")
    with ThreadPoolExecutor(min(DIGEST_THREADS, os.cpu_count() or 1), "verify") as pool:
        digests = pool.map(lambda name: sha256_of(folder / name), files)
        for (name, entry), digest in zip(files.items(), digests, strict=True):
            if digest != entry["sha256"]:
                pool.shutdown(wait=False, cancel_futures=True)
                raise StorageError(f"{folder / name}: expected SHA-256 {entry['sha256']}, found {digest}; {remedy}")
