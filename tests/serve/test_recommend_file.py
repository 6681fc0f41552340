"""Recommendations of many users as a file: the rows of each user alone, to the bit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from helpers import random_pairs
from recipes import prepare_and_train, recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError, StorageError
from dist_gat.serve import ranker, recommend_file
from dist_gat.serve.opened_model import open_answers
from dist_gat.serve.saved_model import SavedModel, open_model

COLUMNS = ["user_id", "item_id", "score", "rank"]
USERS, ITEMS = 300, 40
# with both filters beside the model, and with predictions of ratings for scores
KINDS = {
    "ranking": {"blend": {"spectral_rank": 8, "spectral_weight": 0.3, "linear": True, "linear_weight": 0.4}},
    "plain": {},
    "rating": {"task": {"kind": "rating"}},
}


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    """300 users, 0 of whom has met all of 40 items; users are in three parts."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "raw").mkdir()
    pairs = [*random_pairs(USERS, ITEMS, 0.2), *((0, item) for item in range(ITEMS))]
    rows = [f"{user},{item},{(user + item) % 5}" for user, item in sorted(set(pairs))]
    (folder / "raw" / "interactions.csv").write_text("\n".join(["user_id,item_id,rating", *rows]))
    prepare_and_train(
        recipe(
            folder,
            data={"split": {"valid_ratio": 0.05, "test_ratio": 0}},
            parts={"num_parts": 3},
            train={"num_epochs": 1},
            **KINDS[request.param],
        )
    )
    return open_model(folder / "run" / "model")


def each_alone(model: SavedModel, users: list[int], k: int) -> pl.DataFrame:
    return pl.concat([open_answers(model).recommend([str(user)], k) for user in users]).select(COLUMNS)


def test_all_users_have_the_rows_that_each_has_alone(
    model: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranker, "CHUNK", 256)
    monkeypatch.setattr(ranker, "ITEM_BLOCK", 7)
    monkeypatch.setattr(ranker, "BLOCK_SCORES", 1)
    monkeypatch.setattr(recommend_file, "SAY_EVERY_S", 0.0)
    said: list[str] = []
    done = recommend_file.recommend_file(model, None, tmp_path / "all.parquet", 5, said.append)
    table = pl.read_parquet(tmp_path / "all.parquet")
    assert table.columns == COLUMNS
    assert table["user_id"].n_unique() == USERS - 1
    assert (done["users"], done["rows"], done["met_everything"]) == (USERS, len(table), 1)
    users = table["user_id"].unique(maintain_order=True).to_list()
    assert table.equals(each_alone(model, users, 5))
    assert f" of {USERS} users; " in said[0]


def test_a_file_of_users_keeps_its_order(model: SavedModel, tmp_path: Path) -> None:
    asked = [17, 3, 299, 3]
    pl.DataFrame({"age": [1, 2, 3, 4], "user_id": asked}).write_parquet(tmp_path / "users.parquet")
    pl.DataFrame({"age": [1, 2, 3, 4], "user_id": asked}).write_csv(tmp_path / "users.csv")
    (tmp_path / "users.txt").write_text("\ufeff" + "\r\n".join(map(str, asked)) + "\n\n")
    pl.DataFrame({"user_id": asked}).write_csv(tmp_path / "one.csv")
    expected = each_alone(model, asked, 4)
    for name in ("users.parquet", "users.csv", "users.txt", "one.csv"):
        recommend_file.recommend_file(model, tmp_path / name, tmp_path / "out.csv", 4)
        assert pl.read_csv(tmp_path / "out.csv").equals(expected), name


def test_users_that_nobody_knows_are_counted(model: SavedModel, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("1\n9999\nanna\n")
    with pytest.raises(DataError, match=r"users\.txt: 2 of 3 users are unknown to the model, e\.g\. '9999', 'anna'"):
        recommend_file.recommend_file(model, users, tmp_path / "out.csv", 4)
    pl.DataFrame({"user_id": [1.0, 1.5]}).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(DataError, match=r"1 of 2 users are unknown to the model, e\.g\. 1\.5"):
        recommend_file.recommend_file(model, tmp_path / "users.parquet", tmp_path / "out.csv", 4)
    (tmp_path / "table.csv").write_text("name,age\na,1\n")
    with pytest.raises(DataError, match="no column user_id; found 'name', 'age'"):
        recommend_file.recommend_file(model, tmp_path / "table.csv", tmp_path / "out.csv", 4)
    with pytest.raises(DataError, match="no such file"):
        recommend_file.recommend_file(model, tmp_path / "none.txt", tmp_path / "out.csv", 4)
    with pytest.raises(DataError, match="unknown user '9999' among 300"):
        open_answers(model).recommend(["1", "9999"], 4)
    assert not (tmp_path / "out.csv").exists()


def test_an_output_that_is_stopped_or_cannot_be_written_leaves_what_stood_there(
    model: SavedModel, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        recommend_file.recommend_file(model, None, tmp_path / "out.csv", 4, is_stopped=lambda: True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    with pytest.raises(ConfigError, match="tells no format"):
        recommend_file.recommend_file(model, None, tmp_path / "out.xlsx", 4)
    with pytest.raises(StorageError, match="choose another place with --output"):
        recommend_file.recommend_file(model, None, tmp_path / "none" / "out.csv", 4)


def test_a_run_is_named_by_its_folder_its_model_its_recipe_or_its_configuration(
    small_run: Path, tmp_path: Path
) -> None:
    from recipes import small_recipe

    from dist_gat.config.files import dump_config

    config = small_recipe(small_run)
    (tmp_path / "recipe.yaml").write_text(dump_config(config))
    expected = api.recommend(small_run / "run", ["u3"], 3)
    for source in (small_run / "run" / "model", tmp_path / "recipe.yaml", config):
        assert api.recommend(source, ["u3"], 3).equals(expected)
    elsewhere = [f"run={tmp_path / 'none'}"]
    for source in (tmp_path / "none", tmp_path / "recipe.yaml"):
        with pytest.raises(StorageError, match="none: no such run folder"):
            api.recommend(source, ["u3"], 3, overrides=elsewhere)
    with pytest.raises(StorageError, match="none: no such run folder"):
        api.explain(tmp_path / "none", "u3")
