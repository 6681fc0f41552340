"""Reading the curves of a run back from its event files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dist_gat.base.errors import StorageError
from dist_gat.train.run_log import RunLog, read_curves


def test_curves_come_back_whole_and_without_what_a_resumed_run_did_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, rank=0, step=0)
    for step in range(1, 12_001):  # more than TensorBoard's reader keeps by itself
        log.scalars(step, {"train/loss": float(step)})
    log.close()
    again = RunLog(tmp_path, rank=0, step=11_990)
    again.scalars(11_991, {"train/loss": -1.0, "valid/recall@20": 0.5})
    again.close()
    curves = read_curves(tmp_path)
    assert curves.keys() == {"train/loss", "valid/recall@20"}
    assert curves["train/loss"] == [*((step, float(step)) for step in range(1, 11_991)), (11_991, -1.0)]
    assert curves["valid/recall@20"] == [(11_991, 0.5)]


def test_a_folder_without_event_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"tensorboard: no TensorBoard event files.*dist-gat train"):
        read_curves(tmp_path)
