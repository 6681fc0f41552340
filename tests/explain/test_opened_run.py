"""An opened run explains as the verb does, of the model that was opened and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from recipes import small_recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError, StorageError, UnknownIdError


def test_an_opened_run_explains_as_the_verb_and_stays(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    opened, late = api.open(run), api.open(run)
    expected = api.explain(run, "u3", "i5", top=3)
    assert opened.explain("u3", "i5", 3) == expected
    assert opened.explain("u3") == api.explain(run, "u3")
    with pytest.raises(UnknownIdError, match="nobody"):
        opened.explain("nobody")
    with (run / "model" / "manifest.json").open("a") as file:
        file.write("\n")
    assert opened.explain("u3", "i5", 3) == expected
    with pytest.raises(StorageError, match="another model took the place"):
        late.explain("u3", "i5")


def test_a_recipe_opens_its_run_and_a_model_folder_has_no_explanations(small_run: Path) -> None:
    config = small_recipe(small_run)
    assert api.open(config).explain("u3", "i5") == api.explain(config, "u3", "i5")
    with pytest.raises(ConfigError, match="open the run folder"):
        api.open(small_run / "run" / "model").explain("u3")
