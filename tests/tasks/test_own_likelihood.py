"""A task of a user's own: the one of docs/tasks.md, as it stands there, and files that are none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import labels
import numpy as np
import polars as pl
import pytest

from dist_gat import api
from dist_gat.base.errors import DistGatError
from dist_gat.config.sections import Config

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def recipe(folder: Path, run: str = "own", **task: Any) -> Config:
    task = {"kind": "own", "file": str(folder / "watch_time.py"), "label": "days", "metric": "deviance", **task}
    return labels.recipe(folder, task, run, train={"num_epochs": 4}, launch={"num_workers": 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    labels.write_labels(folder)
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "class WatchTime" in block
    ]
    (folder / "watch_time.py").write_text(code)
    api.prepare(recipe(folder))
    return folder


def test_the_task_of_the_page_trains_evaluates_and_predicts(folder: Path) -> None:
    config = recipe(folder)
    trained = api.train(config)
    assert trained["valid"]["deviance"] == min(found["deviance"] for found in trained["history"])
    assert api.evaluate(config)["test"]["deviance"] > 0
    predicted = api.predict(config.run_folder, pl.read_csv(folder / "labels.csv"))
    assert predicted["prediction"].mean() == pytest.approx(predicted["days"].mean(), rel=0.2)
    result = api.compare(config, ["mean"])
    assert np.isfinite(result["models"]["mean"]["metrics"]["deviance"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "expected a Python file, which every worker can read"),
        ("import nothing_of_the_name", "ModuleNotFoundError"),
        ("x = 1", "has no attribute 'build_likelihood'"),
        ("def build_likelihood(settings, labels):\n    return object()", "its likelihood has no loss, predict"),
    ],
)
def test_a_file_that_is_no_task_is_told(folder: Path, tmp_path: Path, code: str | None, words: str) -> None:
    file = tmp_path / "task.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(DistGatError, match=words):
        api.train(recipe(folder, "none", file=str(file)))


def test_a_metric_that_the_file_does_not_measure_is_told(folder: Path) -> None:
    with pytest.raises(DistGatError, match="train.metric=rmse is undefined on the validation pairs, or not measured"):
        api.train(recipe(folder, "unmeasured", metric="rmse"))


def test_labels_are_checked_by_the_file(folder: Path) -> None:
    with pytest.raises(DistGatError, match="expected seconds above 0"):
        api.train(recipe(folder, "wrong", label="plays"))
