"""A trial in a process of its own: what it tells, how it stops, and that nothing of it is left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from processes import becomes_true, is_running, note_pid_and_wait

from dist_gat.api import train
from dist_gat.base.errors import TrainingError
from dist_gat.config.files import load_config
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.launcher.launch import run_job
from dist_gat.train.event_log import PROGRESS_FILE
from dist_gat.tune.trial_process import TrialProcess

LAUNCH = LaunchConfig(launcher="local", num_workers=1, threads_per_worker=1)


def tree_of(folder: Path, num_workers: int = 1) -> dict[str, Any]:
    launch = LAUNCH.model_copy(update={"num_workers": num_workers}).model_dump()
    (folder / "run").mkdir(parents=True)
    return {"name": "trial", "run": str(folder / "run"), "data": {"interactions": "x.csv"}, "launch": launch}


def start(run: Any, tree: dict[str, Any], folder: Path) -> TrialProcess:
    return TrialProcess(run, tree, LAUNCH, folder / "stop")


def validated(config: Config, *values: tuple[int, float]) -> None:
    with (config.run_folder / PROGRESS_FILE).open("a") as file:
        for number, (epoch, value) in enumerate(values):
            is_best = all(value > before for _, before in values[:number])
            event = {"event": "valid", "epoch": epoch, "value": value, "best": is_best}
            file.write(json.dumps(event) + "\n")
            file.write(json.dumps({"event": "save"}) + "\n")


def validate_thrice(config: Config) -> dict[str, Any]:
    # as after a crash between a validation and its checkpoint
    validated(config, (1, 0.1), (2, 0.3), (2, 0.3), (3, 0.2))
    return {"stopped": False}


def fail_in_the_second_epoch(config: Config) -> dict[str, Any]:
    validated(config, (1, 0.1))
    raise TrainingError("step 7: not finite" + "." * 100_000)


def die(config: Config) -> dict[str, Any]:
    os._exit(9)


def wait_for_the_signal(config: Config) -> dict[str, Any]:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    validated(config, (1, 0.1))
    while not stopped:
        time.sleep(0.05)
    return {"stopped": True}


def sleep_on_two_workers(config: Config) -> dict[str, Any]:
    (config.run_folder / "pid-trial").write_text(str(os.getpid()))
    return run_job(note_pid_and_wait, config, quiet=True)


def test_it_tells_every_epoch_once_with_the_best_so_far_then_its_end(tmp_path: Path) -> None:
    trial = start(validate_thrice, tree_of(tmp_path), tmp_path)
    results = [trial.step() for _ in range(4)]
    assert [(r["epochs"], r["epoch"], r["value"]) for r in results] == [
        (1, 1, 0.1),
        (2, 2, 0.3),
        (3, 2, 0.3),
        (3, 2, 0.3),
    ]
    assert ["status" in result for result in results] == [False, False, False, True]
    assert results[-1]["status"] == "finished"
    assert 0 < results[0]["seconds"] <= results[-1]["seconds"]


def test_a_run_that_fails_says_why_and_keeps_what_it_reached(tmp_path: Path) -> None:
    trial = start(fail_in_the_second_epoch, tree_of(tmp_path), tmp_path)
    assert trial.step()["value"] == 0.1
    end = trial.step()
    assert (end["status"], end["value"]) == ("failed", 0.1)
    assert end["note"].startswith("step 7: not finite")


def test_a_process_that_dies_and_values_that_no_run_has_are_failures_too(tmp_path: Path) -> None:
    end = start(die, tree_of(tmp_path / "a"), tmp_path).step()
    assert (end["status"], "exit code 9" in end["note"]) == ("failed", True)
    tree = tree_of(tmp_path / "b") | {"negatives": {"num_shared": 0}}
    end = start(validate_thrice, tree, tmp_path).step()
    assert (end["status"], "there are no negatives" in end["note"]) == ("failed", True)


def test_the_stop_file_asks_it_to_save(tmp_path: Path) -> None:
    trial = start(wait_for_the_signal, tree_of(tmp_path), tmp_path)
    assert "status" not in trial.step()
    (tmp_path / "stop").touch()
    assert trial.step()["status"] == "unfinished"
    assert trial.process.exitcode == 0


def watch_until_killed(folder: Path) -> None:
    start(sleep_on_two_workers, tree_of(folder, num_workers=2), folder).step()


@pytest.mark.parametrize("how", ["watcher killed", "trial killed"])
def test_nothing_of_a_trial_outlives_it(tmp_path: Path, how: str) -> None:
    """Neither its process nor the workers below it, when whoever watches it is killed, or it is."""
    watcher = multiprocessing.get_context("forkserver").Process(target=watch_until_killed, args=(tmp_path,))
    watcher.start()
    notes = [tmp_path / "run" / f"pid-{name}" for name in ("trial", "0", "1")]
    assert becomes_true(lambda: all(note.exists() and note.read_text() for note in notes), 120)
    pids = [int(note.read_text()) for note in notes]
    assert all(is_running(pid) for pid in pids)
    if how == "watcher killed":
        watcher.kill()
    else:
        os.kill(pids[0], signal.SIGKILL)
    watcher.join()
    assert becomes_true(lambda: not any(is_running(pid) for pid in pids), 20)


def test_a_real_run_validates_on_the_validation_split_alone(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial runs, with every ranking of a split noted."""
    from dist_gat.tasks import ranking

    seen = []
    split_metrics = ranking.split_metrics

    def noted(rows: Any, store: Any, worker: Any, relation: Any, split: str, *settings: Any) -> dict[str, float]:
        seen.append(split)
        return split_metrics(rows, store, worker, relation, split, *settings)

    monkeypatch.setattr(ranking, "split_metrics", noted)
    config = load_config(small_run / "run" / "config.yaml")
    train(config.model_copy(update={"run": str(small_run / "noted")}))
    assert seen == ["valid", "valid"]
