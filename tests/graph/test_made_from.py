"""What a prepared folder was made from: verbs refuse a recipe or a table that has changed since, and say what."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import parse_sections, random_pairs, write_pairs
from recipes import recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError, StorageError
from dist_gat.base.storage import MANIFEST
from dist_gat.config.sections import Config
from dist_gat.graph.made_from import open_made
from dist_gat.graph.part import open_prepared

RANDOM = {"method": "random", "valid_ratio": 0.2, "test_ratio": 0.2}
BESIDE = {"id_column": "item_id", "columns": ["user_id"]}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A prepared data set of one table."""
    (tmp_path / "raw").mkdir()
    write_pairs(tmp_path / "raw" / "interactions.csv", random_pairs(30, 20, 0.3))
    made = recipe(tmp_path, data={"split": RANDOM}, train={"num_epochs": 1})
    api.prepare(made)
    return made


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    return parse_sections(config.model_dump(mode="json"), sections)


def refused(config: Config, *words: str, verb: Callable[[Config], Any] = open_made) -> None:
    with pytest.raises(ConfigError) as caught:
        verb(config)
    for word in (*words, config.data.prepared, "dist-gat prepare RECIPE"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"min_weight": 5.0}}, ["data.min_weight: saved None, now 5.0"]),
        ({"data": {"split": {**RANDOM, "test_ratio": 0.5}}}, ["data.split.test_ratio: saved 0.2, now 0.5"]),
        ({"data": {"split": {**RANDOM, "merge_valid": True}}}, ["data.split.merge_valid: saved False, now True"]),
        ({"data": {"columns": {"user_id": "item_id"}}}, ["data.columns.user_id: saved None, now item_id"]),
        ({"data": {"interactions": "other.csv"}}, ["data.interactions: saved interactions.csv, now other.csv"]),
        ({"data": {"item_features": {"path": "x.csv", **BESIDE}}}, ["data.item_features: saved None, now"]),
        ({"data": {"relations": {"cart": {"interactions": "c.csv"}}}}, ["data.relations.cart: saved None, now"]),
        ({"parts": {"num_parts": 5, "method": "range"}}, ["parts.num_parts: saved 2", "parts.method: saved hash"]),
    ],
)
def test_a_setting_that_differs_is_refused_by_name(config: Config, sections: dict[str, Any], words: list[str]) -> None:
    refused(changed(config, **sections), *words)


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"skip_bad_rows": True}},
        {"data": {"split": RANDOM, "train": "unread.csv", "test": "unread.csv"}},
        {"model": {"embedding_size": 32}},
    ],
)
def test_a_setting_that_changes_nothing_there_may_differ(config: Config, sections: dict[str, Any]) -> None:
    open_made(changed(config, **sections))


def test_the_seed_may_differ_and_is_told(config: Config) -> None:
    """docs/quality.md repeats with other seeds on one split."""
    said: list[str] = []
    open_made(config.model_copy(update={"seed": 7}), progress=said.append)
    assert said == [f"the random split is that of seed 0, with which {config.data.prepared} was prepared"]


def test_a_table_that_has_changed_is_refused_by_what_trains(config: Config, tmp_path: Path) -> None:
    table = tmp_path / "raw" / "interactions.csv"
    content = table.read_text()
    for text, words in ((content + "99,1\n", "now"), (content.replace("0,", "1,", 1), "of the same size")):
        table.write_text(text)
        refused(config, "interactions.csv: ", words, verb=api.train)
    refused(config, "interactions.csv: ", verb=lambda config: api.compare(config, ["popularity"]))
    assert not config.run_folder.exists(), "a worker was started"
    table.write_text(content)
    api.compare(config, ["popularity"])


def test_a_host_without_the_tables_or_with_another_place_for_them_trains(config: Config, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere")
    open_made(changed(config, data={"path": str(tmp_path / "elsewhere")}))
    absolute = str(tmp_path / "elsewhere" / "interactions.csv")
    open_made(changed(config, data={"interactions": absolute}))
    open_made(changed(config, data={"path": str(tmp_path / "elsewhere"), "interactions": absolute}))
    shutil.rmtree(tmp_path / "raw")
    open_made(config)
    refused(changed(config, data={"interactions": "other.csv"}), "data.interactions")


@pytest.mark.parametrize("value", [None, {"seed": 0}, {"seed": 0, "settings": {"data": 1, "parts": {}}, "files": {}}])
def test_a_manifest_without_a_record_is_damaged(config: Config, value: Any) -> None:
    file = Path(config.data.prepared) / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), "made_from": value}))
    with pytest.raises(StorageError, match="expected made_from.*dist-gat prepare"):
        open_made(config)


def test_a_model_outlives_its_table_and_no_other_settings(config: Config, tmp_path: Path) -> None:
    api.train(config)
    with (tmp_path / "raw" / "interactions.csv").open("a") as file:
        file.write("99,1\n")
    said: list[str] = []
    api.evaluate(config, progress=said.append)
    api.explain(config, "3", progress=said.append)
    assert sum("since then: interactions.csv: saved" in text for text in said) == 2
    other = changed(config, data={"min_weight": 5.0})
    refused(other, "data.min_weight", verb=api.evaluate)
    refused(other, "data.min_weight", verb=lambda config: api.explain(config, "3"))
    page = api.report(other).read_text(encoding="utf-8")
    assert "data.min_weight: saved None, now 5.0" in page
    assert "Pairs of train" not in page


def test_prepared_again_from_the_same_is_the_same_data_set(config: Config, tmp_path: Path) -> None:
    """So that a model still fits after its table was moved and prepared again."""
    before = open_prepared(config.data.prepared).fingerprint
    (tmp_path / "raw" / "interactions.csv").rename(tmp_path / "raw" / "moved.csv")
    moved = changed(config, data={"interactions": "moved.csv"})
    refused(moved, "saved interactions.csv, now moved.csv")
    api.prepare(moved)
    assert open_made(moved).fingerprint == before


def test_recipes_have_folders_of_their_own(config: Config) -> None:
    tree = config.model_dump(mode="json")
    del tree["data"]["prepared"]
    assert parse_sections({**tree, "name": "jan"}, {}).data.prepared == "prepared/jan"
    assert parse_sections({**tree, "name": "feb"}, {"data": {"prepared": "mine"}}).data.prepared == "mine"


def test_fit_prepares_again_what_another_recipe_left(config: Config, tmp_path: Path) -> None:
    """And goes on with the split of the seed that chose."""
    write_pairs(tmp_path / "raw" / "feb.csv", random_pairs(50, 20, 0.3, seed=1))
    feb = changed(config, data={"interactions": "feb.csv"}).model_copy(update={"run": str(tmp_path / "feb")})
    said: list[str] = []
    result = api.fit(feb, progress=said.append)
    assert any("data.interactions: saved interactions.csv, now feb.csv" in text for text in said)
    last = feb.run_folder / "final" / "prepared"
    assert result["metrics"]["num_users"] > 30
    assert all(open_prepared(folder).ranges.count("user") > 30 for folder in (feb.data.prepared, last))
    other = feb.model_copy(update={"seed": 3, "run": str(tmp_path / "other")})
    api.fit(other)
    folders = [open_prepared(folder) for folder in (last, other.run_folder / "final" / "prepared")]
    assert folders[0].fingerprint == folders[1].fingerprint
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        api.fit(changed(feb, data={"interactions": "nowhere.csv"}))
