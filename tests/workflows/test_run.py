"""A run refuses what it can't do before workers start, and leaves the user's own files in its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults.hostile import contents, prepare_tiny

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return prepare_tiny(tmp_path_factory.mktemp("own"))


@pytest.fixture
def config(prepared: Config, tmp_path: Path) -> Config:
    return prepared.model_copy(update={"run": str(tmp_path / "run")})


def restarted(config: Config) -> Config:
    return config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"resume": "restart"})})


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "tensorboard/events.out.tfevents.1", "progress.jsonl", "checkpoints/last.ckpt", "lock",
     "evaluation.json", "compare.json", "model/weights.pt"],
)  # fmt: skip
@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_with_files_of_others_is_refused(config: Config, name: str, restart: bool) -> None:
    path = config.run_folder / name
    path.parent.mkdir(parents=True)
    path.write_text(f"# mine\n{dump_config(config)}")
    before = contents(config.run_folder)
    with pytest.raises(ConfigError, match=f"run: .*{name.partition('/')[0]}.* not written by"):
        api.train(restarted(config) if restart else config)
    assert contents(config.run_folder) == before


def test_a_recipe_that_a_run_wrote_is_written_again_until_somebody_changes_it(config: Config) -> None:
    api.train(config)
    path = config.run_folder / "config.yaml"
    before = path.read_text()
    assert api.load_config(path) == config
    longer = config.model_copy(update={"train": config.train.model_copy(update={"num_epochs": 2})})
    api.train(longer)
    assert api.load_config(path) == longer
    path.write_text(before.replace("num_epochs: 1", "num_epochs: 1  # notes of 3 May"))
    edited = contents(config.run_folder)
    with pytest.raises(ConfigError, match=r"config\.yaml: not written by a run"):
        api.train(restarted(config))
    assert contents(config.run_folder) == edited


def test_a_restart_leaves_what_the_run_did_not_write(config: Config) -> None:
    first = api.train(config)
    curves = set(config.run_folder.rglob("events.out.tfevents.*"))
    own = ["tensorboard/mine.csv", "ray/notes.txt", "thesis.txt", "tensorboard/evaluate/mine.txt", ".model.yaml"]
    for name in own:
        (config.run_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (config.run_folder / name).write_text(name)
    api.evaluate(config)
    again = api.train(restarted(config))
    assert (again["resumed_from"], again["losses"]) == (None, first["losses"])
    assert all((config.run_folder / name).read_text() == name for name in own)
    assert not (config.run_folder / "evaluation.json").exists()
    assert curves
    assert not any(path.exists() for path in curves)


def test_results_of_others_are_not_replaced(config: Config) -> None:
    api.train(config)
    for name, verb in (("evaluation.json", api.evaluate), ("compare.json", lambda c: api.compare(c, ["popularity"]))):
        (config.run_folder / name).write_text('{"mine": 1}')
        with pytest.raises(ConfigError, match=f"{name}: not written by `dist-gat {name[:4]}"):
            verb(config)
        (config.run_folder / name).unlink()
        verb(config)
        verb(config)


@pytest.mark.parametrize(
    ("section", "changed", "told"),
    [("sampling", {"relations": {"friends": {"fanouts": [1]}}}, "sampling.relations names friends"),
     ("task", {"kind": "click"}, "weight 3; expected 0 or 1"),
     ("data", {"min_user_interactions": 2}, "data.min_user_interactions"),
     ("model", {"keys": ["category"]}, "model.keys names category")],
)  # fmt: skip
def test_what_can_not_run_is_refused_before_workers_start(
    config: Config, section: str, changed: dict[str, Any], told: str
) -> None:
    said: list[str] = []
    tree = config.model_dump(mode="json")
    tree[section] |= changed
    tree["train"].pop("metric")  # that of the task
    with pytest.raises((ConfigError, DataError), match=told):
        api.train(Config.model_validate(tree), progress=said.append)
    assert not any("starting" in line for line in said)
    api.train(config, progress=said.append)
    assert "starting 1 local workers" in said
