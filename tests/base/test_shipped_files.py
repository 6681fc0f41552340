"""`dist-gat recipes` and the files behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dist_gat.base.errors import ConfigError
from dist_gat.base.shipped_files import about, copy_shipped, find_shipped, shipped_files
from dist_gat.cli.main import app
from dist_gat.config.files import load_config
from dist_gat.tune.search_space import read_space

ROOT = Path(__file__).parents[2]


def test_every_file_of_configs_and_launch_has_a_name_and_says_what_it_is() -> None:
    files = shipped_files()
    in_clone = {file for folder in ("configs", "launch") for file in (ROOT / folder).rglob("*.*")}
    assert set(files.values()) == in_clone
    assert list(files)[:4] == ["gowalla", "ml-100k", "synthetic", "quality/ciao-trust"]
    assert {"spaces/default", "launch/README.md", "launch/kuberay.yaml"} <= files.keys()
    for name, file in files.items():
        assert 10 < len(about(file)) < 200, name
    assert about(files["synthetic"]) == "The data set that `dist-gat data synthetic` writes: no network needed"
    assert about(files["launch/README.md"]) == "Running on a Ray cluster"


def test_every_recipe_loads() -> None:
    config = load_config(find_shipped("ml-100k"))
    read_space(find_shipped("spaces/default"), config)
    for name, file in shipped_files().items():
        if not name.startswith(("spaces/", "launch/")):
            load_config(file)


@pytest.mark.parametrize("name", ["ml-100k", "ml-100k.yaml", "configs/ml-100k.yaml"])
def test_a_recipe_is_found_by_the_names_that_people_give_it(name: str) -> None:
    assert find_shipped(name) == ROOT / "configs" / "ml-100k.yaml"


def test_a_copy_is_never_over_a_file_unless_told(tmp_path: Path) -> None:
    output = tmp_path / "new" / "recipe.yaml"
    copy_shipped("ml-100k", output)
    assert output.read_bytes() == (ROOT / "configs" / "ml-100k.yaml").read_bytes()
    with pytest.raises(ConfigError, match="recipe.yaml: there is a file already.*--force"):
        copy_shipped("gowalla", output)
    assert output.read_bytes() == (ROOT / "configs" / "ml-100k.yaml").read_bytes()
    copy_shipped("gowalla", output, force=True)
    assert output.read_bytes() == (ROOT / "configs" / "gowalla.yaml").read_bytes()
    assert list(output.parent.iterdir()) == [output]
    with pytest.raises(ConfigError, match="nothing: no recipe of that name; there are gowalla, ml-100k"):
        copy_shipped("nothing", tmp_path / "nothing.yaml")


def test_the_verb_lists_shows_and_copies(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["recipes"])
    assert listed.exit_code == 0
    assert "quality/tiktok" in listed.stdout
    assert "no network needed" in " ".join(listed.stdout.split())
    shown = CliRunner().invoke(app, ["recipes", "synthetic"])
    assert shown.stdout == (ROOT / "configs" / "synthetic.yaml").read_text()
    copied = CliRunner().invoke(app, ["recipes", "synthetic", "--output", str(tmp_path / "mine.yaml")])
    assert f"synthetic is in {tmp_path / 'mine.yaml'}" in copied.stdout.replace("\n", "")
    assert load_config(tmp_path / "mine.yaml").name == "synthetic"
    without_name = CliRunner().invoke(app, ["recipes", "--output", str(tmp_path / "all.yaml")])
    assert (without_name.exit_code, "goes with the name of a recipe" in without_name.output) == (2, True)


def test_a_missing_recipe_is_an_error_that_names_the_verb() -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: no such configuration file; `dist-gat recipes` lists some"):
        load_config("nowhere.yaml")
