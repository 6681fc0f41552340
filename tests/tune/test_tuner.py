"""The search itself: proposals that don't depend on interruptions, early stopping, and one search as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from processes import becomes_true, command_of, is_running
from recipes import small_recipe as recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.files import dump_config, load_config
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.train.event_log import PROGRESS_FILE
from dist_gat.tune.search_space import Distribution, Space
from dist_gat.tune.trial import Trial, trial_folder
from dist_gat.tune.tuner import Proposals, halving, open_study, time_limit, values_of

SPACE: Space = {
    "sampling.fanouts": Distribution(choice=[[5], [10, 5]]),
    "train.learning_rate": Distribution(log_uniform=[0.01, 0.1]),
    "train.warmup_steps": Distribution(integer=[0, 5]),
}


def objective(values: dict[str, Any]) -> float:
    return values["train.learning_rate"] + 0.01 * values["train.warmup_steps"]


def ended(number: int, values: dict[str, Any]) -> Trial:
    failed = number % 5 == 0
    value = None if failed else objective(values)
    return Trial(number=number, values=values, value=value, status="failed" if failed else "finished")


def propose(trials: list[Trial], until: int) -> list[Trial]:
    """Go on with a search, one trial after another, to so many."""
    study = open_study(3, SPACE, trials)
    done = [trial for trial in trials if trial.status != "unfinished"]
    while len(done) < until:
        name = f"trial {len(done) + 1}"
        trial = ended(len(done) + 1, values_of(SPACE, study.suggest(name)))
        is_failed = trial.status == "failed"
        study.on_trial_complete(name, None if is_failed else {"value": trial.value}, is_failed)
        done.append(trial)
    return done


def test_a_search_that_goes_on_proposes_what_it_would_have_proposed() -> None:
    """In the random beginning and where TPE has taken over, with the trial that was under way tried first."""
    whole = propose([], 24)
    assert all(SPACE[key].contains(value) for trial in whole for key, value in trial.values.items())
    assert len({trial.values["train.learning_rate"] for trial in whole}) > 20
    for cut in (3, 16):
        under_way = Trial(number=cut + 1, values=whole[cut].values)
        assert propose([*whole[:cut], under_way], 24) == whole


def test_proposals_get_better_and_follow_the_seed() -> None:
    values = [trial.value for trial in propose([], 40) if trial.value is not None]
    assert sum(values[-10:]) > sum(values[:10])
    first = [open_study(seed, SPACE, []).suggest("a") for seed in (3, 3, 4)]
    assert first[0] == first[1] != first[2]


def test_early_stopping_goes_on_with_what_earlier_trials_had_reached(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    config = config.model_copy(update={"train": config.train.model_copy(update={"num_epochs": 9})})
    trials = [Trial(number=number, values={}, status="pruned") for number in (1, 2, 3)]
    for trial, values in zip(trials, [(0.2, 0.3, 0.4), (0.3, 0.4, 0.5), (0.4, 0.5, 0.6)], strict=True):
        folder = trial_folder(config.run_folder / "tune", trial.number)
        folder.mkdir(parents=True)
        events = [
            {"event": "valid", "epoch": epoch, "value": value, "best": value > max([0.0, *values[: epoch - 1]])}
            for epoch, value in enumerate(values, start=1)
        ]
        (folder / PROGRESS_FILE).write_text("".join(json.dumps(event) + "\n" for event in events))

    def decisions(before: list[Trial], *values: float) -> list[str]:
        scheduler, trial = halving(config, before), SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(None, trial)
        results = [{"epochs": epoch, "value": value} for epoch, value in enumerate(values, start=1)]
        return [scheduler.on_trial_result(None, trial, result) for result in results]

    assert decisions([], 0.1, 0.1, 0.1) == ["CONTINUE"] * 3
    assert decisions(trials, 0.1) == ["STOP"]
    assert decisions(trials, 0.39, 0.39, 0.39) == ["CONTINUE", "CONTINUE", "STOP"]
    assert decisions(trials, 0.39, 0.39, 0.59) == ["CONTINUE"] * 3


def test_a_time_limit_asks_to_stop_and_says_so(tmp_path: Path) -> None:
    with time_limit(1e-3, tmp_path / "stop") as is_over:
        assert becomes_true((tmp_path / "stop").exists, 20)
        assert is_over.is_set()
    for minutes in (60.0, None):
        with time_limit(minutes, tmp_path / "never") as is_over:
            pass
        assert not is_over.is_set()
    assert not (tmp_path / "never").exists()


def test_a_lost_actor_leaves_its_trial_to_go_on_with(tmp_path: Path) -> None:
    told: list[Trial] = []
    proposals = Proposals(recipe(tmp_path), SPACE, [], told.append)
    for name in "abc":
        assert proposals.suggest(name)["tree"]["name"].startswith("small-000")
    reached = {"epochs": 1, "epoch": 1, "value": 0.25, "seconds": 2.0}
    for name in "ab":
        proposals.on_trial_result(name, {**reached, "training_iteration": 1})
    proposals.on_trial_complete("a", error=True)
    proposals.on_trial_complete("b", {**reached, "training_iteration": 1})
    proposals.on_trial_complete("c", {"epochs": 0, "seconds": 1.0, "status": "failed", "note": "not finite"})
    saved = [Trial.model_validate_json(path.read_text()) for path in sorted(tmp_path.glob("run/tune/trials/*/*.json"))]
    assert [(t.status, t.value, t.seconds) for t in saved] == [
        ("unfinished", 0.25, 2.0),
        ("pruned", 0.25, 2.0),
        ("failed", None, 1.0),
    ]
    assert "lost" in saved[0].note
    assert told == saved[1:]


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_space(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "dist_gat.tune.tuner", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'dist-gat\[tune\]'"):
        api.tune(recipe(tmp_path), tmp_path / "space.yaml")


def test_without_validation_pairs_nothing_starts(tmp_path: Path) -> None:
    write_space(tmp_path)
    write_synthetic(tmp_path / "raw", 24, 16, 2, 4, 0.1, seed=1)
    data = recipe(tmp_path).data
    split = data.split.model_copy(update={"valid_ratio": 0.0})
    config = recipe(tmp_path).model_copy(update={"data": data.model_copy(update={"split": split})})
    api.prepare(config)
    with pytest.raises(DataError, match="no validation interactions"):
        api.tune(config, tmp_path / "space.yaml")


def write_space(folder: Path) -> None:
    """One of three learning rates gives a loss that is not finite."""
    (folder / "space.yaml").write_text(
        "train.learning_rate: {choice: [0.01, 0.03, 1.0e+30]}\nmodel.decoder.temperature: {log_uniform: [0.1, 0.5]}\n"
    )


WAIT_S = 600  # on a host that is busy with other work


class Search:
    """`dist-gat tune` in a process of its own, and what it left in its folder."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.tune = config.run_folder / "tune"
        (folder / "recipe.yaml").write_text(dump_config(config))
        arguments = ["recipe.yaml", "space.yaml", "--trials", "6", "--concurrent", "2", "--json"]
        self.command = [sys.executable, "-m", "dist_gat.cli.main", "tune", *arguments]
        self.folder = folder

    def start(self) -> None:
        self.process = psutil.Popen(
            self.command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> tuple[int, str, str]:
        """Exit code and output."""
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, err

    def trials(self) -> list[Trial]:
        paths = sorted(self.tune.glob("trials/*/trial.json"))
        return [Trial.model_validate_json(path.read_text()) for path in paths]

    def wait(self, condition: Callable[[list[Trial]], bool]) -> None:
        assert becomes_true(lambda: condition(self.trials()) or self.process.poll() is not None, WAIT_S)
        assert self.process.poll() is None, self.process.communicate()

    def below(self) -> list[int]:
        return [process.pid for process in self.process.children(recursive=True)]


def num_ended(trials: list[Trial]) -> int:
    return sum(trial.status != "unfinished" for trial in trials)


@pytest.fixture
def search(small_run: Path, tmp_path: Path) -> Iterator[Search]:
    write_space(tmp_path)
    config = recipe(small_run)
    train = config.train.model_copy(update={"num_epochs": 3, "batch_size": 128, "patience": 0})
    search = Search(config.model_copy(update={"run": str(tmp_path / "run"), "train": train}), tmp_path)
    yield search
    if search.process.poll() is None:
        search.process.kill()
        search.process.communicate()


@pytest.mark.ray
@pytest.mark.timeout(3 * WAIT_S)
def test_a_search_is_killed_stopped_and_goes_on_to_a_recipe_that_trains(search: Search) -> None:
    # killed outright, when one has ended and another runs
    search.start()
    search.wait(lambda trials: num_ended(trials) >= 1 and any(t.epochs and t.status == "unfinished" for t in trials))
    below = search.below()
    assert len(below) > 4
    listening = [c.laddr.ip for pid in below for c in connections(pid) if c.status == psutil.CONN_LISTEN]
    assert listening
    # the third is the first, as an IPv6 socket writes it
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    # two agents of Ray's own look for their parent once in a while, and end minutes later
    ours = [pid for pid in below if "Agent" not in command_of(pid)]
    assert len(ours) > 4
    search.process.kill()
    search.process.communicate()
    assert becomes_true(lambda: not any(is_running(pid) for pid in ours), 60), [command_of(pid) for pid in ours]
    killed = search.trials()

    # asked to stop
    search.start()
    search.wait(lambda trials: any(t.seconds > k.seconds for t, k in zip(trials, killed, strict=False)))
    below = search.below()
    os.kill(search.process.pid, signal.SIGTERM)
    code, out, err = search.end()
    assert code == 143, err
    assert json.loads(out)["stopped"] is True
    assert becomes_true(lambda: not any(is_running(pid) for pid in below), 60)
    stopped = search.trials()
    assert [t for t in stopped if t.number in ended_numbers(killed)] == [t for t in killed if t.status != "unfinished"]

    # to its end
    logs = {
        number: (trial_folder(search.tune, number) / PROGRESS_FILE).read_bytes() for number in ended_numbers(stopped)
    }
    search.start()
    code, out, err = search.end()
    assert code == 0, err
    result = json.loads(out)
    assert out.count("\n") == 1
    assert "Traceback" not in err
    assert all(line.startswith("  ") for line in err.splitlines()), err
    assert [Trial.model_validate(trial) for trial in result["trials"]] == search.trials()
    assert [trial["number"] for trial in result["trials"]] == list(range(1, 7))
    assert {trial["status"] for trial in result["trials"]} <= {"finished", "pruned", "failed"}
    for number, log in logs.items():
        assert (trial_folder(search.tune, number) / PROGRESS_FILE).read_bytes() == log, "it ran again"
    for trial in result["trials"]:
        is_bad = trial["values"]["train.learning_rate"] == 1e30
        assert (trial["status"] == "failed") == is_bad, trial
        assert ("not finite" in trial["note"]) == is_bad
        folder = trial_folder(search.tune, trial["number"])
        assert not list(folder.glob("checkpoints/step-*"))
        assert not (folder / "evaluation.json").exists()
    good = [trial["value"] for trial in result["trials"] if trial["status"] != "failed"]
    best = result["trials"][result["best"] - 1]
    assert best["value"] == max(good)

    # the recipe gives what the search found
    trained = api.train(load_config(result["recipe"]))
    assert trained["valid"]["ndcg@20"] == pytest.approx(best["value"], rel=1e-6)
    assert trained["best_epoch"] >= best["epoch"]


def ended_numbers(trials: list[Trial]) -> list[int]:
    return [trial.number for trial in trials if trial.status != "unfinished"]


def connections(pid: int) -> list[Any]:
    try:
        return psutil.Process(pid).net_connections()
    except psutil.Error:
        return []
