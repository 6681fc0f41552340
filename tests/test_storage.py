"""Folders are whole or absent, and damage is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dist_gat import storage
from dist_gat.errors import StorageError
from dist_gat.storage import (
    MANIFEST,
    atomic_folder,
    open_array,
    read_manifest,
    save_array,
    sha256_of,
    verify_files,
    write_manifest,
    write_text,
)

REMEDY = "run it again"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(folder: Path) -> Path:
    save_array(folder / "sub" / "a.npy", np.arange(5))
    (folder / "b.txt").write_text("hello")
    write_manifest(folder, "kind", 1, {"count": 3})
    return folder


def read(folder: Path) -> dict[str, Any]:
    return read_manifest(folder, "kind", 1, REMEDY)


def refused(folder: Path, *expected: str) -> None:
    with pytest.raises(StorageError) as caught:
        verify_files(folder, read(folder), REMEDY)
    for text in (*expected, REMEDY):
        assert text in str(caught.value)


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as folder:
        (folder / "new").write_text("x")
        assert not target.exists()
        assert folder.parent == target.parent, "a rename needs one file system"
    assert names(target) == ["new"]
    assert names(target.parent) == ["target"]


def test_an_existing_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("x")
    with atomic_folder(target) as folder:
        (folder / "new").write_text("x")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, existing: bool, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    if existing:
        target.mkdir()
        (target / "old").write_text("x")
    with pytest.raises(error), atomic_folder(target) as folder:
        (folder / "new").write_text("x")
        raise error
    assert names(tmp_path) == (["target"] if existing else [])
    assert not existing or names(target) == ["old"]


def test_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "zweite Zeile ü"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.int32), np.zeros((0, 2), np.int64), np.ones((3, 2)).T])
def test_arrays_round_trip_read_only(tmp_path: Path, array: np.ndarray) -> None:
    save_array(tmp_path / "new" / "a.npy", array)
    found = open_array(tmp_path / "new" / "a.npy")
    np.testing.assert_array_equal(found, array, strict=True)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_pickled_and_damaged_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(ValueError, match="Object arrays"):
        save_array(path, np.array([{}], dtype=object))
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    damaged = [path.read_bytes(), b"", b"not an array at all"]
    save_array(path, np.arange(1000))
    damaged.append(path.read_bytes()[:-8])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"a\.npy: expected a readable npy array"):
            open_array(path)
    with pytest.raises(StorageError, match="missing"):
        open_array(tmp_path / "missing.npy")


def test_sha256_is_that_of_hashlib_with_and_without_file_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\x00abc" * 600_000
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_of(tmp_path / "a") == expected
    with (tmp_path / "a").open("rb") as file:
        assert storage._sha256(file) == expected
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert sha256_of(tmp_path / "a") == expected


def test_a_manifest_lists_every_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    manifest = read(folder)
    assert (manifest["format"], manifest["version"], manifest["count"]) == ("kind", 1, 3)
    assert manifest["files"]["b.txt"] == {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    assert manifest["files"].keys() == {"b.txt", "sub/a.npy"}
    verify_files(folder, manifest, REMEDY)


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "sub" / "a.npy").unlink()
    refused(tmp_path, "a.npy: expected 168 bytes, found no file")


@pytest.mark.parametrize(("content", "found"), [("hell", "found 4 bytes"), ("hello!", "found 6 bytes")])
def test_a_file_of_another_size_is_found(tmp_path: Path, content: str, found: str) -> None:
    (write_folder(tmp_path) / "b.txt").write_text(content)
    refused(tmp_path, "b.txt: expected 5 bytes", found)


def test_a_flipped_byte_is_found_by_verification_alone(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "b.txt").write_text("hellp")
    read(tmp_path)
    refused(tmp_path, "b.txt: expected SHA-256 2cf24d", f"found {sha256_of(tmp_path / 'b.txt')}")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "not found")
    refused(tmp_path, MANIFEST, "not found")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "found None"),
        ('{"format": "kind", "version": 2, "files": {}}', "found ('kind', 2)"),
        ('{"format": "other", "version": 1, "files": {}}', "expected format kind version 1, found ('other', 1)"),
        ('{"format": "kind", "version": 1}', MANIFEST),
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (write_folder(tmp_path) / MANIFEST).write_bytes(text.encode("latin-1"))
    refused(tmp_path, found)


def test_manifests_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    for folder, order in ((tmp_path / "one", "abc"), (tmp_path / "two", "cab")):
        for name in order:
            save_array(folder / f"{name}.npy", np.full(3, ord(name)))
        write_manifest(folder, "kind", 1, {})
    assert (tmp_path / "one" / MANIFEST).read_text() == (tmp_path / "two" / MANIFEST).read_text()
    assert list(json.loads((tmp_path / "one" / MANIFEST).read_text())["files"]) == ["a.npy", "b.npy", "c.npy"]
