"""Folders at URLs as folders of this host: fetched in part, checked, once for all processes, anew when they change."""

from __future__ import annotations

import json
import multiprocessing
import uuid
from pathlib import Path

import pytest

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.fetched_folder import (
    UPLOADING,
    clear_fetched,
    fetch_folder,
    list_fetched,
    publish_folder,
    upload_folder,
)  # fmt: skip
from dist_gat.base.part_files import open_parts
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.storage import MANIFEST, describe_files, write_manifest

KIND, REMEDY = "dist_gat.test", "write it again"
CONTENT = {"ids/a.bin": b"all need it", "parts/0000/x.bin": b"zero" * 100, "parts/0001/x.bin": b"one" * 100}


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/there"


def made(folder: Path, content: dict[str, bytes] = CONTENT) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_manifest(folder, KIND, 1, {}, describe_files(folder))
    return folder


def fetched(url: str, cache: Path, parts: list[int] | None = None, verify: bool = False) -> Path:
    return open_parts(url, KIND, 1, REMEDY, verify, lambda message: None, parts, cache)[0]


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_fetched_as_far_as_it_is_needed(url: str, tmp_path: Path) -> None:
    upload_folder(made(tmp_path / "here"), RemoteFolder(url), KIND)
    cache = tmp_path / "cache"
    folder = fetched(url, cache, [1])
    assert names_in(folder) == ["ids/a.bin", MANIFEST, "parts/0001/x.bin"]
    assert fetched(url, cache, [0]) == folder
    assert names_in(folder) == [*sorted([*CONTENT, MANIFEST])]
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert (folder.parent / "address").read_text() == url


def test_what_is_here_is_not_fetched_again(url: str, tmp_path: Path) -> None:
    remote, cache = RemoteFolder(url), tmp_path / "cache"
    upload_folder(made(tmp_path / "here"), remote, KIND)
    first = fetched(url, cache)
    remote.remove(*CONTENT)
    assert fetched(url, cache) == first, "the manifest alone was read"


def test_another_manifest_is_another_folder(url: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    upload_folder(made(tmp_path / "here"), RemoteFolder(url), KIND)
    first = fetched(url, cache)
    upload_folder(made(tmp_path / "new", {"ids/a.bin": b"another"}), RemoteFolder(url), KIND)
    second = fetched(url, cache)
    assert (second / "ids" / "a.bin").read_bytes() == b"another"
    assert names_in(second) == ["ids/a.bin", MANIFEST]
    assert (first / "ids" / "a.bin").read_bytes() == CONTENT["ids/a.bin"], "whoever has it open keeps it"
    assert RemoteFolder(url).names() == ["ids/a.bin", MANIFEST]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (b"one" * 99 + b"onX", "expected SHA-256 .*, found"),
        (b"one" * 99, "expected 300 bytes, found 297"),
        (None, "not found; the manifest has it"),
    ],
)
def test_a_damaged_object_is_refused(url: str, tmp_path: Path, damage: bytes | None, told: str) -> None:
    remote, name = RemoteFolder(url), "parts/0001/x.bin"
    upload_folder(made(tmp_path / "here"), remote, KIND)
    if damage is None:
        remote.remove(name)
    else:
        remote.write(name, damage)
    with pytest.raises(StorageError, match=f"{url}/{name}: {told}.*{REMEDY}"):
        fetched(url, tmp_path / "cache")
    folder = fetched(url, tmp_path / "cache", [0])
    assert not (folder / name).exists(), "nothing damaged has its name"
    assert not list(folder.rglob("*.tmp-*"))


def test_damage_here_is_healed(url: str, tmp_path: Path) -> None:
    upload_folder(made(tmp_path / "here", {"parts/0000/x.bin": b"z" * 300_000}), RemoteFolder(url), KIND)
    path = fetched(url, tmp_path / "cache") / "parts" / "0000" / "x.bin"
    path.write_bytes(b"z" * 10)
    fetched(url, tmp_path / "cache")
    assert path.read_bytes() == b"z" * 300_000
    path.write_bytes(b"z" * 150_000 + b"Y" + b"z" * 149_999)
    fetched(url, tmp_path / "cache")
    assert b"Y" in path.read_bytes(), "size and ends are the same"
    fetched(url, tmp_path / "cache", verify=True)
    assert b"Y" not in path.read_bytes()


def test_an_upload_that_is_cut_counts_for_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, here = RemoteFolder(url), made(tmp_path / "here")
    upload_folder(here, remote, KIND)
    put = RemoteFolder.put

    def fails(self: RemoteFolder, source: Path, name: str) -> None:
        if name == "parts/0001/x.bin":
            raise StorageError("cut")
        put(self, source, name)

    monkeypatch.setattr(RemoteFolder, "put", fails)
    with pytest.raises(StorageError, match="cut"):
        upload_folder(here, remote, KIND)
    with pytest.raises(StorageError, match=f"{MANIFEST}: not found, and {UPLOADING} of an upload.*{REMEDY}"):
        fetched(url, tmp_path / "cache")
    monkeypatch.undo()
    upload_folder(here, remote, KIND)
    assert remote.names() == sorted([*CONTENT, MANIFEST])
    fetched(url, tmp_path / "cache")


def test_what_was_published_is_fetched_already(url: str, tmp_path: Path) -> None:
    cache, remote = tmp_path / "cache", RemoteFolder(url)
    publish_folder(made(cache / "staging"), remote, KIND, cache)
    assert not (cache / "staging").exists()
    remote.remove(*CONTENT)
    assert names_in(fetched(url, cache)) == sorted([*CONTENT, MANIFEST])


@pytest.mark.parametrize("name", ["../out.bin", "/etc/out.bin", "a/../../out.bin", "x/manifest.json"])
def test_names_stay_inside(url: str, tmp_path: Path, name: str) -> None:
    remote = RemoteFolder(url)
    upload_folder(made(tmp_path / "here"), remote, KIND)
    manifest = json.loads(remote.read(MANIFEST) or b"")
    manifest["files"][name] = manifest["files"].pop("ids/a.bin")
    remote.write(MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(StorageError, match=f"{url}/{MANIFEST}: expected files inside the folder, found"):
        fetched(url, tmp_path / "cache")
    assert not list(tmp_path.rglob("out.bin"))


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"format": "other", "version": 1}', b"\xff\xfe\x00"])
def test_a_manifest_that_is_none_is_refused(url: str, tmp_path: Path, text: bytes) -> None:
    RemoteFolder(url).write(MANIFEST, text)
    with pytest.raises(StorageError, match=f"{url}/{MANIFEST}: .*{REMEDY}"):
        fetched(url, tmp_path / "cache")


def fetch_whole(url: str, cache: Path) -> None:
    folder, names = fetch_folder(url, KIND, 1, REMEDY, cache=cache)
    assert all((folder / name).stat().st_size == 1 << 20 for name in names)


def test_processes_of_a_host_fetch_at_once(tmp_path: Path) -> None:
    content = {f"parts/{part:04d}/x.bin": bytes([part]) * (1 << 20) for part in range(8)}
    url, cache = (tmp_path / "there").as_uri(), tmp_path / "cache"
    upload_folder(made(tmp_path / "here", content), RemoteFolder(url), KIND)
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=fetch_whole, args=(url, cache)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    folder = fetched(url, cache)
    assert {name: (folder / name).read_bytes() for name in content} == content
    assert names_in(folder) == sorted([*content, MANIFEST])


def test_a_kind_of_url_that_needs_a_package_or_is_none() -> None:
    with pytest.raises(ConfigError, match="run=nonsense://x: .*expected s3://bucket"):
        RemoteFolder("nonsense://x", "run")
    with pytest.raises(ConfigError, match="data.prepared=gs://shop/a: gs:// can't be opened .*pip install 'gcsfs'"):
        RemoteFolder("gs://shop/a", "data.prepared")


def test_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacks)
    with pytest.raises(ConfigError, match=r"pip install 'dist-gat\[s3\]'"):
        RemoteFolder("s3://shop/a", "run")


def test_the_cache_is_listed_and_cleared(url: str, tmp_path: Path) -> None:
    upload_folder(made(tmp_path / "here"), RemoteFolder(url), KIND)
    folder, cache = fetched(url, tmp_path / "cache"), tmp_path / "cache"
    (kept,) = list_fetched(cache)
    assert (kept["url"], kept["folder"]) == (url, str(folder.parent))
    assert kept["bytes"] >= sum(map(len, CONTENT.values()))
    (cache / "numba").mkdir()
    clear_fetched(cache)
    assert list_fetched(cache) == []
    assert (cache / "numba").is_dir(), "what is of others stays"
