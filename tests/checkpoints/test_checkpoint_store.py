"""Where checkpoints are: a folder, or a URL through fsspec."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch
from helpers import Ranks
from safetensors.torch import load_file, save_file

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.storage import read_manifest, verify_files
from dist_gat.checkpoints import weight_files
from dist_gat.checkpoints.checkpoint_store import CheckpointStore, FolderCheckpoints, UrlCheckpoints, sorted_steps
from dist_gat.exchange.channel import Channel, open_channel

ALONE = Channel("saving")


def archives(folder: Path) -> list[CheckpointStore]:
    memory = UrlCheckpoints(f"memory://{folder}")
    return [FolderCheckpoints(folder / "a"), UrlCheckpoints((folder / "b").as_uri()), memory]


def commit(archive: CheckpointStore, step: int, channel: Channel = ALONE) -> None:
    with archive.writing(step, channel, "kind", 1, {"step": step}) as folder:
        (folder / "parts").mkdir()
        (folder / "parts" / f"{channel.rank}.bin").write_text(f"{step}")


def test_checkpoints_are_committed_read_pruned_and_set_aside(tmp_path: Path) -> None:
    for archive in archives(tmp_path):
        assert archive.steps() == []
        for step in (5, 10, 15, 20):
            commit(archive, step)
        with archive.reading(10, ["parts/0.bin", "parts/9.bin"]) as folder:
            manifest = read_manifest(folder, "kind", 1, "")
            verify_files(folder, manifest, "")
            assert (folder / "parts" / "0.bin").read_text() == "10"
        archive.prune(2, best=5)
        assert archive.steps() == [20, 15, 5]
        archive.set_aside(20)
        assert archive.steps() == [15, 5]
        archive.clear()
        assert archive.steps() == []
        if archive.root != f"memory://{tmp_path}":
            # nor what was set aside
            assert list(tmp_path.glob("*/*step-*")) == []


def test_a_failed_write_commits_nothing(tmp_path: Path) -> None:
    for archive in archives(tmp_path):
        commit(archive, 1)
        failed = pytest.raises(StorageError, match="step-00000002.*rank 0: ValueError: no")
        with failed, archive.writing(2, ALONE, "kind", 1, {}) as folder:
            (folder / "half").write_text("x")
            raise ValueError("no")
        assert archive.steps() == [1]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["step-00000001"]


def write_at_url(url: str) -> None:
    commit(UrlCheckpoints(url), 7, open_channel("saving", torch.device("cpu"), 30))


def test_ranks_write_to_one_url(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(2, write_at_url, tmp_path.as_uri())
    manifest = read_manifest(tmp_path / "step-00000007", "kind", 1, "")
    assert sorted(manifest["files"]) == ["parts/0.bin", "parts/1.bin"]
    verify_files(tmp_path / "step-00000007", manifest, "")


def test_the_manifest_comes_last_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, copied = UrlCheckpoints(tmp_path.as_uri()), []
    put, write = RemoteFolder.put, RemoteFolder.write
    monkeypatch.setattr(RemoteFolder, "put", lambda *args: (copied.append(args[2]), put(*args)))
    monkeypatch.setattr(RemoteFolder, "write", lambda *args: (copied.append(args[1]), write(*args)))
    commit(archive, 3)
    assert copied == ["uploading.json", "parts/0.bin", "manifest.json"]
    fsspec.filesystem("file").rm(str(tmp_path / "step-00000003" / "manifest.json"))
    assert archive.steps() == [], "a folder without its manifest is no checkpoint"


def test_names_that_are_no_steps_are_passed_over() -> None:
    assert sorted_steps(["step-00000003", "step-12", "step-x", "damaged", "step-", ".step-4.tmp"]) == [12, 3]


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="checkpoint.url=nonsense://x: .*expected s3://bucket"):
        UrlCheckpoints("nonsense://x")


def test_tensors_are_written_as_the_library_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "ROWS_AT_ONCE", 3)
    both = torch.randn(7, 2, 5)
    tensors = {
        "strided": both[:, 1], "wide": torch.randn(4, 6, dtype=torch.float64).T, "half": torch.randn(3).bfloat16(),
        "number": torch.tensor(2.5), "count": torch.tensor([1, 2, 3]), "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4), "narrow": torch.zeros(5, 0),
    }  # fmt: skip
    weight_files.save_tensors(tmp_path / "new" / "ours", tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "theirs")
    ours, theirs = load_file(tmp_path / "new" / "ours"), load_file(tmp_path / "theirs")
    assert ours.keys() == tensors.keys()
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape)
        assert torch.equal(ours[name], value)
