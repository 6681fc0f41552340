"""A run at a URL: its small files here and there, and who holds it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path

import pytest

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.base.remote_run import RUN_FILES, SentFiles, claim_run, fetch_run_files, is_fetched
from dist_gat.base.run_folder import CONFIG_FILE, HOLDER, LOCK_FILE
from dist_gat.train.event_log import PROGRESS_FILE
from dist_gat.train.run_log import EVENTS_FOLDER
from dist_gat.workflows.result_files import COMPARISON_FILE, EVALUATION_FILE

OWN = (*RUN_FILES, "checkpoints")
BEAT_S = 0.2


@pytest.fixture
def remote() -> RemoteFolder:
    return RemoteFolder(f"memory://{uuid.uuid4().hex}/run")


def claim(remote: RemoteFolder, folder: Path, said: list[str] | None = None):  # type: ignore[no-untyped-def]
    folder.mkdir(exist_ok=True)
    return claim_run(remote, folder, OWN, (said if said is not None else []).append, BEAT_S)


def test_the_names_are_those_that_runs_write() -> None:
    assert {CONFIG_FILE, PROGRESS_FILE, EVALUATION_FILE, COMPARISON_FILE, EVENTS_FOLDER, "profile"} == {*RUN_FILES}


def test_small_files_go_there_when_they_change_and_come_back(remote: RemoteFolder, tmp_path: Path) -> None:
    here = tmp_path / "here"
    for name in (CONFIG_FILE, "tensorboard/a", "model/weights", "lock", "tensorboard/evaluate/b"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    files = SentFiles(here, remote)
    files.send()
    assert remote.names() == [CONFIG_FILE, "tensorboard/a", "tensorboard/evaluate/b"]
    remote.remove("tensorboard/a")
    (here / CONFIG_FILE).write_text("changed")
    files.send()
    assert remote.names() == [CONFIG_FILE, "tensorboard/evaluate/b"], "what has not changed is not sent again"
    there = tmp_path / "there"
    (there / "tensorboard").mkdir(parents=True)
    (there / "tensorboard" / "old").write_text("of an attempt that the store knows nothing of")
    (there / "lock").write_text("mine")
    remote.write("checkpoints/step-1/x", b"")
    fetch_run_files(remote, there)
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()) == [
        "address", CONFIG_FILE, "lock", "tensorboard/evaluate/b",
    ]  # fmt: skip
    assert (there / CONFIG_FILE).read_text() == "changed"


def test_a_run_has_one_holder(remote: RemoteFolder, tmp_path: Path) -> None:
    said: list[str] = []
    with claim(remote, tmp_path / "a"):
        assert is_fetched(remote, tmp_path / "a")
        assert not is_fetched(remote, tmp_path / "b")
        with (
            pytest.raises(StorageError, match=f"another run holds this place .{HOLDER}"),
            claim(remote, tmp_path / "b", said),
        ):
            raise AssertionError("two hold it")
        assert "waiting" in said[0]
    with claim(remote, tmp_path / "b", said):
        pass
    assert len(said) == 1, "it had ended, so nobody waited"


def test_the_claim_of_a_dead_process_is_taken_over(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.write(LOCK_FILE, f"{HOLDER}1 on gone\n".encode() + json.dumps({"token": "t", "beat": 3}).encode())
    said: list[str] = []
    with claim(remote, tmp_path / "a", said):
        assert "process 1 on gone" in said[0]
    # at once, where the process was of this host
    remote.write(LOCK_FILE, f"{HOLDER}1 on here\n".encode() + json.dumps({"token": "mine", "beat": 3}).encode())
    (tmp_path / "a" / "claim").write_text("mine")
    with claim(remote, tmp_path / "a", said):
        assert len(said) == 1


def test_a_holder_learns_that_another_took_over(remote: RemoteFolder, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="process 9 on other took this run over"), claim(remote, tmp_path / "a"):
        remote.write(LOCK_FILE, f"{HOLDER}9 on other\n".encode() + json.dumps({"token": "t", "beat": 0}).encode())
        time.sleep(6 * BEAT_S)
    assert b'"t"' in (remote.read(LOCK_FILE) or b""), "the other's claim stays"


def test_of_two_at_once_one_holds_it(remote: RemoteFolder, tmp_path: Path) -> None:
    held, refused = [], []
    begin = threading.Barrier(2)

    def run(name: str) -> None:
        begin.wait()
        try:
            with claim(remote, tmp_path / name):
                held.append(name)
                time.sleep(10 * BEAT_S)
        except StorageError as err:
            refused.append(str(err))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == len(refused) == 1


def test_files_of_others_are_not_replaced(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.write("tensorboard/mine", b"")
    with pytest.raises(ConfigError, match="tensorboard/mine: not written by a run"), claim(remote, tmp_path / "a"):
        pass
    remote.remove("tensorboard/mine")
    remote.write("notes.txt", b"")
    with claim(remote, tmp_path / "a"):
        pass
