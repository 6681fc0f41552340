"""Files that are either whole or not there: atomic folders, npy arrays, JSON manifests with SHA-256.

Nothing here reads or writes pickle. A folder gets its final name in one rename, after its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dist_gat.errors import StorageError

MANIFEST = "manifest.json"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `target` when the block succeeds, and vanishes when it fails.

    An existing `target` is replaced only then.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        flush_folder(temporary)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Give `source` the name `target`; what stood there goes away after the rename."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    if target.exists():
        target.rename(old)
    source.rename(target)
    _flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder that has a final name: first the name goes, so that a crash leaves no half of it."""
    doomed = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Have the disk hold every file and folder below, and their names."""
    for path in sorted(folder.rglob("*")):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small text file in one step: readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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


def open_array(path: Path) -> np.ndarray:
    """Memory-map one npy array, read-only."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise StorageError(f"{path}: expected a readable npy array: {err}; run the step that wrote it again") from None


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below `folder`, by its name relative to the folder."""
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


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
    """Read a manifest and check format, version and that every file, or `only` those named, has its recorded size.

    `remedy` tells the user which command makes the folder anew.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path}: not found; {remedy}") from None
    except ValueError as err:
        raise StorageError(f"{path}: not valid JSON ({err}); {remedy}") from None
    described = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if described != (kind, version):
        raise StorageError(f"{path}: expected format {kind} version {version}, found {described}; {remedy}")
    if not isinstance(manifest.get("files"), dict):
        raise StorageError(f"{path}: expected a list of files; {remedy}")
    for name, entry in manifest["files"].items():
        if only is not None and name not in only:
            continue
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            found = "no file" if size is None else f"{size} bytes"
            raise StorageError(f"{file}: expected {entry['bytes']} bytes, found {found}; {remedy}")
    return manifest


def verify_files(folder: Path, manifest: dict[str, Any], remedy: str) -> None:
    """Check the SHA-256 of every file of a manifest."""
    for name, entry in manifest["files"].items():
        digest = sha256_of(folder / name)
        if digest != entry["sha256"]:
            raise StorageError(f"{folder / name}: expected SHA-256 {entry['sha256']}, found {digest}; {remedy}")
