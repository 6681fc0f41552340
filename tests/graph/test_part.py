"""Opening a prepared folder: damage is found before anything reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import prepare_pairs, random_pairs

from dist_gat.errors import StorageError
from dist_gat.graph.part import PreparedGraph, open_prepared

INDICES = "parts/0001/indices.npy"


@pytest.fixture
def folder(holed: PreparedGraph, tmp_path: Path) -> Path:
    return Path(shutil.copytree(holed.folder, tmp_path / "copy"))


def refused(folder: Path, *expected: str, verify: bool = False) -> None:
    with pytest.raises(StorageError) as caught:
        open_prepared(folder, verify)
    for text in (*expected, "dist-gat prepare"):
        assert text in str(caught.value)


def test_a_copy_is_the_same_data_set(folder: Path, holed: PreparedGraph) -> None:
    copy = open_prepared(folder, verify=True)
    assert copy.fingerprint == holed.fingerprint
    np.testing.assert_array_equal(copy.ranges.bounds, holed.ranges.bounds)


def test_arrays_are_mapped_read_only(holed: PreparedGraph) -> None:
    for array in (holed.parts[0].indices, holed.parts[0].indptr, holed.parts[1].edges["train"]):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_a_truncated_file_is_found(folder: Path) -> None:
    path = folder / INDICES
    path.write_bytes(path.read_bytes()[:-4])
    refused(folder, "indices.npy: expected", "bytes, found")


def test_a_missing_file_or_folder_is_found(folder: Path) -> None:
    (folder / INDICES).unlink()
    refused(folder, "indices.npy", "found no file")
    refused(folder / "nowhere", "not found")
    shutil.rmtree(folder / "parts" / "0000")
    refused(folder, "found no file")


def test_a_file_of_another_data_set_is_found(folder: Path, tmp_path: Path) -> None:
    other = prepare_pairs(tmp_path / "other", random_pairs(12, 9, 0.5), seed=9)
    shutil.copy(other.folder / INDICES, folder / INDICES)
    refused(folder, "indices.npy", verify=True)
    shutil.copy(other.folder / "manifest.json", folder / "manifest.json")
    refused(folder)


def test_a_folder_of_another_format_or_version_is_found(folder: Path) -> None:
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    for old, new in (('"version": 1', '"version": 2'), ("dist_gat.parts", "dist_gat.model")):
        assert old in text
        manifest.write_text(text.replace(old, new))
        refused(folder, "expected format dist_gat.parts version 1")


@pytest.mark.parametrize("name", [INDICES, "ids/user.parquet", "parts/0003/train.npy"])
def test_a_flipped_byte_is_found_by_verification(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    open_prepared(folder)
    refused(folder, "SHA-256", Path(name).name, verify=True)
