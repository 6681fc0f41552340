"""`fetch_folder`: a folder with a manifest that is at a URL, as a folder of this host; `publish_folder`: the way there.

CACHE/fetched/KEY/address             the URL
CACHE/fetched/KEY/DIGEST/             its files, as far as this host has needed them, DIGEST: of the manifest there
CACHE/fetched/KEY/DIGEST.lock         held by the process that fetches

A file has its name only when it is whole and its SHA-256 is that of the manifest, so processes of one host may fetch
at once, and a killed one leaves nothing that counts. Another manifest at the URL is another folder here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from dist_gat.base.addresses import key_of, local_cache
from dist_gat.base.errors import StorageError
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.storage import MANIFEST, atomic_file, check_manifest, ends_of, sha256_of

FETCHED, ADDRESS = "fetched", "address"
KINDS = (FETCHED, "copies", "runs")  # folders with manifests; runs that are read; runs that this host works on
UPLOADING = "uploading.json"  # is there from the first file of an upload to its manifest
THREADS = 8


def fetch_folder(
    url: str, kind: str, version: int, remedy: str, needs: Callable[[str], bool] = lambda name: True,
    cache: Path | None = None, verify: bool = False, progress: Progress = be_silent,
) -> tuple[Path, list[str]]:  # fmt: skip
    """The folder of this host with what it needs of a folder at a URL, and the names of these files.

    kind, version: of its manifest. needs: of the name of a file. verify: look at the whole SHA-256 of what is here
    already, and not at size and ends alone; what is damaged is fetched anew. Raises `StorageError`.
    """
    remote = RemoteFolder(url)
    content = read_remote_manifest(remote, remedy)
    manifest = check_manifest(content, remote.at(MANIFEST), kind, version, remedy)
    names = [name for name in manifest["files"] if needs(name)]
    for name in names:
        _check_entry(remote, name, manifest["files"][name], remedy)
    folder = folder_of(url, content, cache)
    with _locked(folder):
        _write_where_other(folder.parent / ADDRESS, remote.url.encode())
        _write_where_other(folder / MANIFEST, content)
        waiting = [name for name in names if not _is_whole(folder / name, manifest["files"][name], verify)]
        if waiting:
            size = sum(manifest["files"][name]["bytes"] for name in waiting)
            progress(f"fetching {len(waiting):,} files, {size / 2**30:.3g} GiB, of {remote.url}")
        with ThreadPoolExecutor(THREADS, "fetch") as pool:
            for done in [pool.submit(_fetch, remote, name, folder, manifest["files"], remedy) for name in waiting]:
                try:
                    done.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    return folder, names


def read_remote_manifest(remote: RemoteFolder, remedy: str) -> bytes:
    """Raises `StorageError`, which tells an upload that has not ended from nothing."""
    content = remote.read(MANIFEST)
    if content is None:
        begun = f", and {UPLOADING} of an upload that is under way or was cut" if remote.read(UPLOADING) else ""
        raise StorageError(f"{remote.at(MANIFEST)}: not found{begun}; {remedy}")
    return content


def folder_of(url: str, manifest: bytes, cache: Path | None) -> Path:
    return local_cache(cache) / FETCHED / key_of(url) / hashlib.sha256(manifest).hexdigest()[:16]


def _check_entry(remote: RemoteFolder, name: str, entry: Any, remedy: str) -> None:
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or not plain.parts or plain.name in (MANIFEST, UPLOADING):
        raise StorageError(f"{remote.at(MANIFEST)}: expected files inside the folder, found {name!r}; {remedy}")
    if not isinstance(entry, dict) or not {"bytes", "ends_sha256", "sha256"} <= entry.keys():
        raise StorageError(f"{remote.at(MANIFEST)}: {name!r} has no size and digests; {remedy}")


def _is_whole(path: Path, entry: dict[str, Any], verify: bool) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    return sha256_of(path) == entry["sha256"] if verify else ends_of(path) == entry["ends_sha256"]


def _fetch(remote: RemoteFolder, name: str, folder: Path, files: dict[str, Any], remedy: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / name) as temporary:
        try:
            remote.get(name, temporary)
        except StorageError as err:
            raise StorageError(f"{err}; the manifest has it: {remedy}") from None
        expected, found = files[name]["bytes"], temporary.stat().st_size
        if found != expected:
            raise StorageError(f"{remote.at(name)}: expected {expected} bytes, found {found}; {remedy}")
        if (digest := sha256_of(temporary)) != files[name]["sha256"]:
            raise StorageError(
                f"{remote.at(name)}: expected SHA-256 {files[name]['sha256']}, found {digest}; {remedy}"
            )  # fmt: skip


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of this host fetches a folder at a time; the next finds what it fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        with suppress(OSError):  # a file system without locks: both fetch, and one rename wins
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_where_other(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)


def publish_folder(
    folder: Path, remote: RemoteFolder, kind: str, cache: Path | None = None, progress: Progress = be_silent
) -> None:
    """`upload_folder`, and keep it as fetched: `folder` itself is gone then. Raises `StorageError`."""
    files, content = upload_folder(folder, remote, kind, progress), (folder / MANIFEST).read_bytes()
    kept = folder_of(remote.url, content, cache)
    with _locked(kept):
        for name in [*files, MANIFEST]:
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(kept / name)
        _write_where_other(kept.parent / ADDRESS, remote.url.encode())
    shutil.rmtree(folder)


def upload_folder(folder: Path, remote: RemoteFolder, kind: str, progress: Progress = be_silent) -> list[str]:
    """Upload a folder with its manifest, in place of what stood there. Returns its files. Raises `StorageError`.

    The manifest there is deleted first and written last, so whoever reads meanwhile finds none. What the folder here
    lacks is deleted there.
    """
    content = (folder / MANIFEST).read_bytes()
    files = json.loads(content)["files"]
    begin_upload(remote, kind, len(files))
    size = sum(entry["bytes"] for entry in files.values())
    progress(f"uploading {len(files):,} files, {size / 2**30:.3g} GiB, to {remote.url}")
    with ThreadPoolExecutor(THREADS, "upload") as pool:
        for done in [pool.submit(remote.put, folder / name, name) for name in files]:
            done.result()
    end_upload(remote, content)
    return list(files)


def begin_upload(remote: RemoteFolder, kind: str, num_files: int | None = None) -> None:
    """Say that an upload is under way, and take away the manifest of what it replaces."""
    remote.write(UPLOADING, json.dumps({"format": kind, "files": num_files}).encode())
    remote.remove(MANIFEST)


def end_upload(remote: RemoteFolder, manifest: bytes) -> None:
    """Write the manifest, and delete what it does not name."""
    remote.write(MANIFEST, manifest)
    remote.remove(UPLOADING)
    listed = json.loads(manifest)["files"]
    remote.remove(*(name for name in remote.names() if name not in listed and name != MANIFEST))


def list_fetched(cache: Path | None = None) -> list[dict[str, Any]]:
    """url, what, folder and bytes of each thing at a URL of which this host keeps something."""
    found = []
    for what in KINDS:
        for folder in sorted(path for path in (local_cache(cache) / what).glob("*") if path.is_dir()):
            address = folder / ADDRESS
            url = address.read_text(encoding="utf-8") if address.is_file() else folder.name
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append({"url": url, "what": what, "folder": str(folder), "bytes": size})
    return found


def clear_fetched(cache: Path | None = None) -> None:
    """Delete all of it. Whoever has it open must be done."""
    for what in KINDS:
        shutil.rmtree(local_cache(cache) / what, ignore_errors=True)
