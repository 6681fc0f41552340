"""The records of a search: what is read back, what is refused, what a trial's and the best recipe are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.config.files import load_config, parse_config
from dist_gat.config.sections import Config
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import cores
from dist_gat.tune.search_space import Distribution, Space
from dist_gat.tune.trial import (
    Trial,
    best_trial,
    open_search,
    save_trial,
    share_cores,
    trial_folder,
    trial_tree,
    write_best,
)

SPACE: Space = {
    "model.embedding_size": Distribution(choice=[8, 16]),
    "train.learning_rate": Distribution(log_uniform=[0.01, 0.1]),
}
VALUES = {"model.embedding_size": 16, "train.learning_rate": 0.02}


def config_of(folder: Path, **sections: dict) -> Config:
    return parse_config({"name": "searched", "run": str(folder), "data": {"interactions": "x.csv"}, **sections})


def search_with(folder: Path, prepared: PreparedGraph, *trials: Trial) -> list[Trial]:
    (folder / "tune").mkdir(parents=True, exist_ok=True)
    for trial in trials:
        save_trial(folder / "tune", trial)
    return open_search(folder / "tune", config_of(folder), SPACE, prepared)


def test_trials_come_back_as_they_were_saved(tmp_path: Path, synthetic: PreparedGraph) -> None:
    trials = [
        Trial(number=1, values=VALUES, status="pruned", value=0.2, epoch=3, epochs=4, seconds=1.5),
        Trial(number=2, values=VALUES, status="failed", note="not finite"),
        Trial(number=3, values=VALUES),
    ]
    assert search_with(tmp_path, synthetic, *trials) == trials


def test_another_search_is_refused_with_what_differs(
    tmp_path: Path, synthetic: PreparedGraph, holed: PreparedGraph
) -> None:
    folder = tmp_path / "tune"
    search_with(tmp_path, synthetic)
    free = {"launch": {"num_workers": 1}, "sampling": {"prefetch": False}}
    assert open_search(folder, config_of(tmp_path, **free), SPACE, synthetic) == []
    other = {
        "model.num_heads": Distribution(integer=[1, 2]),
        "train.learning_rate": Distribution(log_uniform=[0.01, 0.2]),
    }
    with pytest.raises(ConfigError) as caught:
        open_search(folder, config_of(tmp_path, train={"patience": 5, "batch_size": 64}), other, holed)
    for words in (
        "train.patience: saved 3, now 5",
        "train.batch_size: saved 4096, now 64",
        "model.embedding_size in the space: saved {'choice': [8, 16]}, now None",
        "model.num_heads in the space: saved None, now {'integer': [1, 2]}",
        "train.learning_rate in the space: saved {'log_uniform': [0.01, 0.1]}, now {'log_uniform': [0.01, 0.2]}",
        "is another one",
        "run=FOLDER",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"number": 2, "values": {}}', '{"number": 1, "values": {"model.embedding_size": 16}}'],
)
def test_a_damaged_trial_is_named(tmp_path: Path, synthetic: PreparedGraph, text: str) -> None:
    search_with(tmp_path, synthetic, Trial(number=1, values=VALUES))
    path = trial_folder(tmp_path / "tune", 1) / "trial.json"
    path.write_text(text)
    with pytest.raises(StorageError, match="trial.json: not a trial of this search"):
        search_with(tmp_path, synthetic)


@pytest.mark.parametrize("wrong", [{"model.embedding_size": 12}, {"train.learning_rate": 0.2}])
def test_values_out_of_the_space_are_refused(tmp_path: Path, synthetic: PreparedGraph, wrong: dict) -> None:
    with pytest.raises(StorageError, match="its values are not of the space"):
        search_with(tmp_path, synthetic, Trial(number=1, values={**VALUES, **wrong}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 9, "config": {}, "space": {}}'])
def test_a_damaged_search_is_named(tmp_path: Path, synthetic: PreparedGraph, text: str) -> None:
    search_with(tmp_path, synthetic)
    (tmp_path / "tune" / "search.json").write_text(text)
    with pytest.raises(StorageError, match="search.json: not a search of this version"):
        search_with(tmp_path, synthetic)


def test_a_missing_trial_is_named(tmp_path: Path, synthetic: PreparedGraph) -> None:
    with pytest.raises(StorageError, match="expected trial 1 in"):
        search_with(tmp_path, synthetic, Trial(number=2, values=VALUES))


def test_a_trial_has_its_values_and_places_of_its_own(tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint={"url": "s3://bucket/run/"}, launch={"num_workers": 3})
    trial = parse_config(trial_tree(config, Trial(number=7, values=VALUES)))
    assert (trial.model.embedding_size, trial.train.learning_rate) == (16, 0.02)
    assert trial.run_folder == tmp_path / "tune" / "trials" / "0007"
    assert trial.checkpoint.url == "s3://bucket/run/tune/0007"
    (tmp_path / "tune").mkdir()
    best = load_config(write_best(config, Trial(number=7, values=VALUES)))
    assert best.run_folder == tmp_path / "tune" / "best"
    assert best.launch == config.launch
    assert (best.model, best.train) == (trial.model, trial.train)


def test_a_best_recipe_that_somebody_changed_is_not_written_again(tmp_path: Path, synthetic: PreparedGraph) -> None:
    search_with(tmp_path, synthetic)
    path = write_best(config_of(tmp_path), Trial(number=7, values=VALUES))
    search_with(tmp_path, synthetic)
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(ConfigError, match=r"best\.yaml: not written by `dist-gat tune`"):
        search_with(tmp_path, synthetic)


def test_the_best_ended_well(tmp_path: Path) -> None:
    def trial(number: int, **fields: object) -> Trial:
        return Trial.model_validate({"number": number, "values": VALUES, **fields})

    trials = [
        trial(1, status="failed", value=0.9),
        trial(2, status="unfinished", value=0.8),
        trial(3, status="pruned", value=0.3),
        trial(4, status="finished", value=0.4),
        trial(5, status="finished", value=0.4),
        trial(6, status="finished"),
    ]
    assert best_trial(trials) == trials[3]
    assert best_trial(trials[:2]) is None
    assert best_trial(trials, higher_is_better=False) == trials[2]


def test_trials_share_the_cores(tmp_path: Path) -> None:
    config = config_of(tmp_path, launch={"launcher": "ray", "num_workers": 4})
    for_trials, at_a_time = share_cores(config, 1, None)
    assert (for_trials.launch.launcher, for_trials.launch.num_workers) == ("local", 1)
    assert at_a_time == min(4, cores())
    assert for_trials.launch.threads_per_worker == cores() // at_a_time
    for_trials, at_a_time = share_cores(config, 2, 3)
    assert (at_a_time, for_trials.launch.num_workers) == (3, 2)
    assert for_trials.launch.threads_per_worker == max(1, cores() // 6)
    with pytest.raises(ConfigError, match=r"exceeds parts.num_parts"):
        share_cores(config, 5, 1)
