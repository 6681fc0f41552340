"""Folders are whole or absent, and damage is found."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.base import storage
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.storage import (
    END_BYTES,
    MANIFEST,
    atomic_file,
    atomic_folder,
    open_array,
    read_manifest,
    refuse_foreign_folder,
    refuse_links_out,
    replace_folder,
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
    found = open_array(tmp_path / "new" / "a.npy", (array.dtype.name,), array.shape, REMEDY)
    np.testing.assert_array_equal(found, array, strict=True)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def refused_array(path: Path, expected: str) -> None:
    with pytest.raises(StorageError, match=rf"{path.name}: expected {expected}.*{REMEDY}"):
        open_array(path, ("int32", "int64"), (1000,), REMEDY)


def test_pickled_and_damaged_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(ValueError, match="Object arrays"):
        save_array(path, np.array([{}], dtype=object))
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    damaged = [path.read_bytes(), pickle.dumps({}), b"", b"not an array at all"]
    save_array(path, np.arange(1000))
    damaged.append(path.read_bytes()[:-8])
    for content in damaged:
        path.write_bytes(content)
        refused_array(path, "a readable npy array")
    refused_array(tmp_path / "missing.npy", "a readable npy array")


@pytest.mark.parametrize("array", [np.zeros(1000), np.zeros(999, np.int64), np.zeros((1000, 1), np.int64)])
def test_an_array_of_another_type_or_shape_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    save_array(tmp_path / "a.npy", array)
    refused_array(
        tmp_path / "a.npy", r"int32 or int64 \[1000\], found " + re.escape(f"{array.dtype} {list(array.shape)}")
    )


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.arange(1000))
    refused_array((tmp_path / "a.npz").rename(tmp_path / "a.npy"), r"int32 or int64 \[1000\], found a zip archive")


@given(content=st.binary(max_size=200), damage=st.sampled_from(["random", "header"]))
def test_random_arrays_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, damage: str
) -> None:
    path = tmp_path_factory.mktemp("random") / "a.npy"
    start = b"" if damage == "random" else b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little")
    path.write_bytes(start + content)
    with suppress(StorageError):
        open_array(path, ("int64",), (3,), REMEDY)


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
    hello, twice = (hashlib.sha256(text).hexdigest() for text in (b"hello", b"hellohello"))
    assert manifest["files"]["b.txt"] == {"bytes": 5, "ends_sha256": twice, "sha256": hello}
    assert manifest["files"].keys() == {"b.txt", "sub/a.npy"}
    verify_files(folder, manifest, REMEDY)


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "sub" / "a.npy").unlink()
    refused(tmp_path, "a.npy: expected 168 bytes, found no file")


@pytest.mark.parametrize(("content", "found"), [("hell", "found 4 bytes"), ("hello!", "found 6 bytes")])
def test_a_file_of_another_size_is_found(tmp_path: Path, content: str, found: str) -> None:
    (write_folder(tmp_path) / "b.txt").write_text(content)
    refused(tmp_path, "b.txt: expected 5 bytes", found)


@pytest.mark.parametrize("at", [0, END_BYTES - 1, -END_BYTES, -1])
def test_another_file_of_the_same_size_is_found_by_its_ends(tmp_path: Path, at: int) -> None:
    content = bytearray(os.urandom(3 * END_BYTES))
    (tmp_path / "b.bin").write_bytes(content)
    write_manifest(tmp_path, "kind", 1, {})
    read(tmp_path)
    content[at] ^= 1
    (tmp_path / "b.bin").write_bytes(content)
    with pytest.raises(StorageError, match=rf"b\.bin: another file of the same size: expected.*found.*{REMEDY}"):
        read(tmp_path)


def test_a_byte_flipped_inside_is_found_by_verification_alone(tmp_path: Path) -> None:
    content = bytearray(os.urandom(3 * END_BYTES))
    (tmp_path / "b.bin").write_bytes(content)
    write_folder(tmp_path)
    before = hashlib.sha256(content).hexdigest()
    content[END_BYTES] ^= 1
    (tmp_path / "b.bin").write_bytes(content)
    read(tmp_path)
    refused(tmp_path, f"b.bin: expected SHA-256 {before}", f"found {sha256_of(tmp_path / 'b.bin')}")


def test_verification_says_how_much_it_reads(tmp_path: Path) -> None:
    said: list[str] = []
    verify_files(write_folder(tmp_path), read(tmp_path), REMEDY, said.append)
    assert said == [f"checking the SHA-256 of 2 files, 1.61e-07 GiB, in {tmp_path}"]


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/SECRET", "link", "away/secret", "a\0b", "x" * 300])
def test_a_manifest_names_files_inside_its_folder_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("hello")
    folder = write_folder(tmp_path / "folder")
    (folder / "link").symlink_to("../secret")
    (folder / "away").symlink_to(tmp_path)
    name = name.replace("/SECRET", str(tmp_path / "secret"))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"]["b.txt"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    refused(folder, MANIFEST, "file")


def test_a_link_inside_the_folder_is_a_file_like_others(tmp_path: Path) -> None:
    (tmp_path / "c.txt").symlink_to("b.txt")
    assert "c.txt" in read(write_folder(tmp_path))["files"]


@pytest.mark.parametrize("entry", [None, 5, {}, {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}])
def test_an_entry_without_digests_is_refused(tmp_path: Path, entry: Any) -> None:
    folder = write_folder(tmp_path)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["b.txt"] = entry
    (folder / MANIFEST).write_text(json.dumps(manifest))
    refused(folder, "'b.txt' has no size and digests")


@pytest.mark.parametrize("leads_to", ["folder", "nowhere"])
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, leads_to: str) -> None:
    for name in ("folder", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("x")
    (tmp_path / "link").symlink_to(leads_to)
    replace_folder(tmp_path / "new", tmp_path / "link")
    assert names(tmp_path) == ["folder", "link"]
    assert (names(tmp_path / "link"), names(tmp_path / "folder")) == (["new"], ["folder"])


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "deep").mkdir(parents=True)
    (run / "inside").symlink_to(run / "deep")
    (run / "circle").symlink_to("circle")
    (tmp_path / "alias").symlink_to(run)
    for folder in (run, tmp_path / "alias", tmp_path / "none"):
        refuse_links_out(folder)
    (run / "deep" / "model").symlink_to(tmp_path)
    for folder in (run, tmp_path / "alias"):
        with pytest.raises(StorageError, match="model: this link leads to .* out of .*remove the link"):
            refuse_links_out(folder)


def test_links_are_looked_for_while_a_running_job_deletes_its_old_checkpoints(tmp_path: Path) -> None:
    done = threading.Event()

    def replace_checkpoints() -> None:
        while not done.is_set():
            for number in range(20):
                (tmp_path / f"step-{number}" / "parts").mkdir(parents=True)
            for number in range(20):
                shutil.rmtree(tmp_path / f"step-{number}")

    job = threading.Thread(target=replace_checkpoints)
    job.start()
    try:
        for _ in range(200):
            refuse_links_out(tmp_path)
    finally:
        done.set()
        job.join()


def test_a_folder_of_others_is_not_replaced(tmp_path: Path) -> None:
    def check(target: Path) -> None:
        refuse_foreign_folder(target, "kind", "run", "dist-gat train")

    check(tmp_path)
    check(tmp_path / "none")
    check(write_folder(tmp_path / "ours"))
    (tmp_path / "ours" / ".DS_Store").write_text("")
    check(tmp_path / "ours")
    (tmp_path / "ours" / "sub" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"run: .*ours/sub/notes\.txt was not written by `dist-gat train`"):
        check(tmp_path / "ours")
    for content in ('{"format": "other"}', "[]", "{", "[" * 100_000):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(ConfigError, match="run: .* was not written by `dist-gat train`"):
            check(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "not found")
    refused(tmp_path, MANIFEST, "not found")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
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


def test_several_that_write_one_folder_at_once_leave_one_of_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, as containers with the same process IDs; each sees its own files alone."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                with atomic_folder(tmp_path / "target") as folder:
                    for name in "ab":
                        (folder / name).write_text(str(number))
                    assert {path.read_text() for path in folder.iterdir()} == {str(number)}
                write_text(tmp_path / "text", str(number))
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert names(tmp_path) == ["target", "text"]
    assert len({path.read_text() for path in (tmp_path / "target").iterdir()}) == 1


def test_what_killed_processes_left_goes_away_unless_somebody_holds_it(tmp_path: Path) -> None:
    def left(name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("")
        os.utime(tmp_path / name, (0, 0))

    for name in (".target.tmp-1", ".target.old-1", ".other.tmp-1"):
        left(name)
    (tmp_path / ".target.tmp-young").mkdir()
    with atomic_folder(tmp_path / "target") as held:
        os.utime(held, (0, 0))
        with suppress(ZeroDivisionError), atomic_folder(tmp_path / "target"):
            assert held.exists()
            assert (tmp_path / ".target.old-1").exists(), "the only whole one, after a kill between two renames"
            raise ZeroDivisionError
    assert names(tmp_path) == [".other.tmp-1", ".target.tmp-young", "target"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_is_being_written_is_not_swept(tmp_path: Path) -> None:
    left = tmp_path / ".table.csv.tmp-1"
    left.write_text("half")
    os.utime(left, (0, 0))
    with atomic_file(tmp_path / "table.csv") as one:
        one.write_text("one")
        os.utime(one, (0, 0))
        with atomic_file(tmp_path / "table.csv") as other:
            other.write_text("other")
        assert one.exists()
    assert names(tmp_path) == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "one"
