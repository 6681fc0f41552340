"""`api.compare`: rows on one split with one evaluator, notes instead of failures, and nothing trained twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recipes

from dist_gat import api
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.workflows import compare


def recipe(folder: Path, **sections: dict[str, Any]) -> Config:
    base = {
        "sampling": {"fanouts": [3]},
        "negatives": {"num_shared": 32},
        "train": {"batch_size": 200},
        "evaluate": {"ks": [5, 20], "baselines": ["popularity"]},
    }
    return recipes.recipe(folder, base=base, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_synthetic(folder / "raw", 90, 60, 3, 10, 0.1, seed=2)
    api.prepare(recipe(folder))
    return folder


@pytest.fixture(scope="module")
def compared(folder: Path) -> dict[str, Any]:
    return api.compare(
        recipe(folder, evaluate={"baseline": {"ease_max_items": 59}}), ["popularity", "ease", "linear", "mf", "recipe"]
    )


def test_every_contender_has_a_row_of_the_same_kind(compared: dict[str, Any]) -> None:
    assert (compared["split"], compared["stopped"]) == ("test", False)
    rows = compared["models"]
    assert list(rows) == ["popularity", "ease", "linear", "mf", "recipe"]
    for name, row in rows.items():
        assert row.keys() == {"metrics", "seconds", "peak_memory_bytes", "note"}
        assert row["seconds"] >= 0
        if name != "ease":
            assert row["metrics"].keys() == rows["popularity"]["metrics"].keys()
            assert row["metrics"]["num_users"] == rows["popularity"]["metrics"]["num_users"]
            assert 50e6 < row["peak_memory_bytes"] < 50e9
    assert rows["linear"]["metrics"]["recall@20"] > rows["popularity"]["metrics"]["recall@20"]


def test_the_rows_are_what_evaluate_finds(folder: Path, compared: dict[str, Any]) -> None:
    alone = api.evaluate(recipe(folder))
    assert compared["models"]["recipe"]["metrics"] == alone["test"]
    assert compared["models"]["popularity"]["metrics"] == alone["baselines"]["popularity"]["test"]


def test_a_baseline_that_can_not_run_says_so_in_its_row(compared: dict[str, Any]) -> None:
    row = compared["models"]["ease"]
    assert row["metrics"] == {}
    assert row["peak_memory_bytes"] is None
    assert row["note"].startswith("ease inverts a dense matrix")


def test_a_model_goes_on_from_its_own_folder(folder: Path, compared: dict[str, Any]) -> None:
    assert (folder / "run" / "compare" / "mf" / "model").is_dir()
    again = api.compare(recipe(folder), ["mf"])["models"]["mf"]
    assert again["metrics"] == compared["models"]["mf"]["metrics"]
    assert again["note"].startswith("went on from step ")


def test_a_model_that_fails_leaves_the_other_rows(folder: Path, compared: dict[str, Any]) -> None:
    changed = recipe(folder).model_copy(update={"seed": 5})
    rows = api.compare(changed, ["mf", "popularity"])["models"]
    assert "belongs to a run with other settings: seed: saved 0, now 5" in rows["mf"]["note"]
    assert rows["popularity"]["metrics"] == compared["models"]["popularity"]["metrics"]


def test_a_stop_ends_the_comparison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "train", lambda config, quiet: {"stopped": True, "steps": 3})
    result = api.compare(recipe(folder), ["mf", "lightgcn", "recipe"])
    assert result["stopped"]
    assert {name: row["note"] for name, row in result["models"].items()} == {
        "mf": "stopped and saved at step 3; the same command goes on"
    }


def test_what_concerns_all_rows_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="svd"):
        api.compare(recipe(folder), ["svd"])
    with pytest.raises(StorageError, match="dist-gat prepare"):
        api.compare(recipe(tmp_path), ["popularity"])
