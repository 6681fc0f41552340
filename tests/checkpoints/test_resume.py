"""Which run a checkpoint belongs to, the run folder, and resuming in one process. Faults are in tests/faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import NUM_STEPS, checkpoints_of, events_of, small_run, state_of

from dist_gat import api
from dist_gat.base.errors import StorageError
from dist_gat.base.run_folder import clear_run, lock_run, sweep_run
from dist_gat.checkpoints.resume import changed_settings
from dist_gat.checkpoints.run_progress import RunProgress
from dist_gat.checkpoints.snapshot import dense_state, load_dense_state
from dist_gat.checkpoints.weight_files import save_tensors
from dist_gat.config.sections import Config
from dist_gat.train.event_log import open_lines
from dist_gat.workflows.run import LEFT_BY_RUNS

ALONE = {"num_workers": 1}


def tree(**sections: dict[str, Any]) -> dict[str, Any]:
    return small_run(Path("x"), **sections).model_dump(mode="json")


def test_settings_that_change_the_numbers_are_listed_and_others_are_free() -> None:
    assert changed_settings(tree(), tree()) == []
    free = tree(
        launch={"num_workers": 4}, evaluate={"ks": [5, 20]}, train={"num_epochs": 9, "patience": 5, "max_steps": 3},
        checkpoint={"keep": 9}, sampling={"prefetch": False, "cache_bytes": 0, "fanouts": [4, 4]},
    )  # fmt: skip
    assert changed_settings(tree(), free) == []
    changed = tree(model={"embedding_size": 8}, loss={"kind": "bpr"}, train={"batch_size": 100})
    assert changed_settings(tree(), changed) == [
        "model.embedding_size: saved 16, now 8", "loss.kind: saved softmax, now bpr",
        "train.batch_size: saved 256, now 100",
    ]  # fmt: skip
    assert "train.schedule: saved constant, now cosine" in changed_settings(tree(), tree(train={"schedule": "cosine"}))


def test_the_length_of_a_run_is_free_only_where_the_learning_rate_does_not_depend_on_it() -> None:
    cosine = {"schedule": "cosine"}
    longer = tree(train={**cosine, "num_epochs": 9})
    assert changed_settings(tree(train=cosine), longer) == ["train.num_epochs: saved 3, now 9"]


def test_one_process_resumes_bit_for_bit_in_mid_epoch_and_at_a_url(tmp_path: Path) -> None:
    whole = small_run(tmp_path, "whole", launch=ALONE)
    api.train(whole)
    for name, url in (("folder", None), ("file", (tmp_path / "remote").as_uri()), ("memory", "memory://remote")):
        cut = small_run(tmp_path, name, launch=ALONE, train={"max_steps": 16}, checkpoint={"url": url})
        assert api.train(cut)["resumed_from"] is None
        result = api.train(cut.model_copy(update={"train": whole.train}))
        assert result["resumed_from"] == 16
        assert result["losses"] == events_losses(whole)
        if url is None:
            assert state_of(cut, NUM_STEPS) == state_of(whole, NUM_STEPS)
        else:
            assert not (cut.run_folder / "checkpoints").exists()
    assert (tmp_path / "remote" / f"step-{NUM_STEPS:08d}" / "manifest.json").exists()


def events_losses(config: Config) -> list[float]:
    return [event["loss"] for event in events_of(config, "step")]


def test_only_the_count_of_steps_stays_on_the_cpu(tmp_path: Path) -> None:
    """A weight without dimensions, as the slope of popularity is, has moments without dimensions."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    save_tensors(tmp_path / "state.safetensors", dense_state(optimizer))
    elsewhere = torch.nn.Parameter(torch.zeros((), device="meta"))
    restored = torch.optim.Adam([elsewhere])
    load_dense_state(tmp_path / "state.safetensors", restored)
    assert {name: value.device.type for name, value in restored.state[elsewhere].items()} == {
        "step": "cpu",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }


def test_a_finished_run_has_nothing_to_do_and_restart_deletes_it(tmp_path: Path) -> None:
    config = small_run(tmp_path, launch=ALONE, train={"num_epochs": 1})
    first = api.train(config)
    (config.run_folder / "notes.txt").write_text("mine")
    again = api.train(config)
    assert again["resumed_from"] == again["steps"] == first["steps"]
    assert again["losses"] == first["losses"]
    other = small_run(
        tmp_path, launch=ALONE, train={"num_epochs": 1}, model={"num_heads": 2}, checkpoint={"resume": "restart"}
    )
    assert api.train(other)["resumed_from"] is None
    assert [event["step"] for event in events_of(config, "step")] == list(range(1, first["steps"] + 1))
    assert (config.run_folder / "notes.txt").exists()


def test_a_checkpoint_that_is_cut_short_is_refused_before_workers_start(tmp_path: Path) -> None:
    config = small_run(tmp_path, launch=ALONE, train={"max_steps": 4}, checkpoint={"every_steps": 2})
    api.train(config)
    victim = checkpoints_of(config).folder(4) / "losses.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    starts = len(events_of(config, "start"))
    with pytest.raises(StorageError, match=r"losses.safetensors: expected \d+ bytes.*checkpoint.resume=previous"):
        api.train(config)
    assert len(events_of(config, "start")) == starts


def test_a_lock_holds_the_folder_and_is_free_afterwards(tmp_path: Path) -> None:
    refused = pytest.raises(StorageError, match=r"another run holds this folder \(process \d+ on ")
    with lock_run(tmp_path), refused, lock_run(tmp_path):
        pass
    with lock_run(tmp_path):
        pass


def test_sweeping_leaves_what_has_a_final_name(tmp_path: Path) -> None:
    for name in ("checkpoints/.step-00000004.tmp/parts", "checkpoints/step-00000002", ".model.tmp", "model"):
        (tmp_path / name).mkdir(parents=True)
    sweep_run(tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["checkpoints", "checkpoints/step-00000002", "model"]
    clear_run(tmp_path, LEFT_BY_RUNS)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("higher_is_better", "values"), [(True, [1.0, 3, 3, 2]), (False, [9.0, 3, 3, 8])])
def test_the_best_validation_is_the_first_of_equals(higher_is_better: bool, values: list[float]) -> None:
    progress = RunProgress()
    found = [
        progress.validated({"step": step, "metric": value}, "metric", higher_is_better)
        for step, value in enumerate(values)
    ]
    assert found == [True, True, False, False]
    assert progress.best["step"] == 1
    assert progress.validations_without_gain("metric", higher_is_better) == 2
    assert RunProgress().validations_without_gain("metric", higher_is_better) == 0


def test_small_gains_count_together() -> None:
    values = [1.0, 3.0, 3.5, 4.0, 5.5, 6.0, 6.5]
    progress = RunProgress(history=[{"metric": value} for value in values])
    assert progress.validations_without_gain("metric", True) == 0
    assert progress.validations_without_gain("metric", True, min_gain=1.0) == 2, "since 5.5"
    falling = RunProgress(history=[{"metric": -value} for value in values])
    assert falling.validations_without_gain("metric", False, min_gain=1.0) == 2


def test_epochs_of_a_loss_that_has_converged_are_counted() -> None:
    losses = [9.0, 7.0, 5.0, 3.0, 3.5, 2.4, 2.9, 2.9, 1.0]
    progress = RunProgress(losses=losses)
    assert progress.epochs_without_gain(2, 0.0) == 0, "means of 8, 4, 2.95, 2.9, and an epoch that is not over"
    assert progress.epochs_without_gain(2, 0.1) == 1
    assert progress.epochs_without_gain(2, 2.0) == 2
    assert RunProgress().epochs_without_gain(2, 0.0) == 0


def test_a_line_that_a_killed_process_left_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"b"')
    with open_lines(path) as file:
        file.write(json.dumps({"c": 2}) + "\n")
    with open_lines(path) as file:
        file.write("end\n")
    assert path.read_text() == '{"a": 1}\n{"b"\n{"c": 2}\nend\n'
