"""Opening a prepared folder: damage is found before anything reads it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import INTERACTS, prepare_pairs, random_pairs

from dist_gat.base.errors import StorageError
from dist_gat.base.storage import MANIFEST, save_array, write_manifest
from dist_gat.data.column_layout import Column, laid_out, to_plain
from dist_gat.graph.part import FORMAT, VERSION, PreparedGraph, open_prepared

INDICES = "parts/0001/indices.npy"
KNOWN_COLUMN = to_plain(laid_out([Column("known", "known", 1, 3)]))[0]
RELATION = {"name": "interacts", "source": "user", "target": "item"}


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
    for array in (holed.parts[0].indices, holed.parts[0].indptr, holed.parts[1].pairs(INTERACTS, "train")):
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
    refused(folder, "indices.npy")
    shutil.copy(other.folder / "manifest.json", folder / "manifest.json")
    refused(folder)


def test_a_folder_of_another_format_or_version_is_found(folder: Path) -> None:
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    for old, new in ((f'"version": {VERSION}', '"version": 1'), ("dist_gat.parts", "dist_gat.model")):
        assert old in text
        manifest.write_text(text.replace(old, new))
        refused(folder, f"expected format dist_gat.parts version {VERSION}")


@pytest.mark.parametrize("name", [INDICES, "ids/user.parquet", "parts/0003/interacts/train.npy"])
def test_a_flipped_byte_of_a_small_file_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, "another file of the same size", Path(name).name)


def test_parts_of_equal_size_that_changed_places_are_found(folder: Path) -> None:
    size: dict[int, Path] = {}
    for path in sorted(folder.glob("parts/*/**/*.npy")):
        other = size.setdefault(path.stat().st_size, path)
        if path.name == other.name and path.read_bytes() != other.read_bytes():
            break
    else:
        pytest.fail("no two files of the same name and size")
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)
    refused(folder, "another file of the same size")


def test_verification_reads_files_whole(folder: Path) -> None:
    large = folder / "parts" / "0000" / "features" / "user.npy"
    save_array(large, np.zeros((100_000, 1), np.float32))
    manifest = json.loads((folder / MANIFEST).read_text())
    described = {key: manifest[key] for key in manifest if key not in ("format", "version", "files")}
    write_manifest(folder, FORMAT, VERSION, described)
    content = bytearray(large.read_bytes())
    content[200_000] ^= 1
    large.write_bytes(content)
    open_prepared(folder)
    refused(folder, "SHA-256", "user.npy", verify=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bounds", [[0, 2, 1]]),
        ("bounds", [[0, 1, 2], [3, 4, 5]]),
        ("bounds", [[1, 2, 3]]),
        ("bounds", [[0, "x", 3]]),
        ("bounds", [[0, 2**70, 2**71]]),
        ("bounds", []),
        ("bounds", None),
        ("schema", None),
        ("schema", {"node_types": ["user", "user"], "relations": [RELATION]}),
        ("schema", {"node_types": ["user", "item"], "relations": []}),
        ("schema", {"node_types": ["user", "item"], "relations": [RELATION, RELATION]}),
        ("schema", {"node_types": ["user", "item"], "relations": [{**RELATION, "target": "tag"}]}),
        ("schema", {"node_types": ["user", "item"], "relations": [{**RELATION, "name": "../up"}]}),
        ("schema", {"node_types": ["user", 1], "relations": [RELATION]}),
        ("split_counts", {"train": [1, 2, 3, 4]}),
        ("split_counts", {"interacts": {"train": [1, 2, 3, 4]}}),
        ("split_counts", {"interacts": {split: [1] for split in ("train", "valid", "test")}}),
        ("popularity_mass", {"interacts": ["a", "b", "c", "d"]}),
        ("popularity_mass", [1, 2, 3, 4]),
        ("columns", None),
        ("columns", {"../user": [KNOWN_COLUMN]}),
        ("columns", {"user": []}),
        ("columns", {"user": [{**KNOWN_COLUMN, "kind": "numeric"}]}),
        ("columns", {"user": [KNOWN_COLUMN, {**KNOWN_COLUMN, "name": "age", "kind": "numeric", "offset": 2}]}),
        ("columns", {"user": [KNOWN_COLUMN, {**KNOWN_COLUMN, "name": "age", "kind": "numeric", "width": "x"}]}),
    ],
)
def test_a_manifest_that_describes_no_parts_is_refused(folder: Path, key: str, value: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, key: value}))
    refused(folder, MANIFEST, "expected", key)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("indptr", np.zeros(3, np.int64)),
        ("indices", np.zeros(1, np.int64)),
        ("interacts/train", np.zeros((1, 2), np.int64)),
        ("interacts/train", np.array([{}])),
        ("interacts/popularity", np.zeros(2, np.float32)),
    ],
)
def test_an_array_that_does_not_fit_is_refused_where_it_is_opened(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / "parts" / "0002" / f"{name}.npy", array, allow_pickle=True)
    manifest = json.loads((folder / MANIFEST).read_text())
    described = {key: manifest[key] for key in manifest if key not in ("format", "version", "files")}
    write_manifest(folder, FORMAT, VERSION, described)
    part = open_prepared(folder).parts[2]
    with pytest.raises(StorageError, match=rf"{name}\.npy: expected .*dist-gat prepare"):
        opened = {
            "interacts/train": lambda: part.pairs(INTERACTS, "train"),
            "interacts/popularity": lambda: part.popularity(INTERACTS),
            "indptr": lambda: part.indptr,
            "indices": lambda: part.indices,
        }
        opened[name]()


def test_ids_that_are_no_table_are_refused(folder: Path) -> None:
    prepared = open_prepared(folder)
    path = folder / "ids" / "user.parquet"
    for content in (pickle.dumps({}), path.read_bytes()[:-9], b""):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"user\.parquet: expected a readable parquet file.*dist-gat prepare"):
            prepared.ids("user")
    pl.DataFrame({"node_id": [1], "external_id": [1]}).write_parquet(path)
    with pytest.raises(StorageError, match="expected external_id and int64 node_id"):
        prepared.ids("user")
