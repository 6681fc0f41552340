"""Data frames in and out, as scikit-learn and RecTools have it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.data.synthetic import write_synthetic

SETTINGS = {"model.embedding_size": 16, "train.num_epochs": 1, "train.batch_size": 256, "sampling.fanouts": [5]}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("frame")
    write_synthetic(folder, 80, 60, 4, 12, 0.1, seed=3)
    return pd.read_csv(folder / "interactions.csv")


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> api.FrameRecommender:
    return api.FrameRecommender(SETTINGS).fit(frame)


def test_what_comes_out_is_what_went_in(fitted: api.FrameRecommender, frame: pd.DataFrame) -> None:
    found = fitted.recommend(users=["u1", "u7"], k=5)
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == ["user_id", "item_id", "score", "rank"]
    assert found["user_id"].tolist() == ["u1"] * 5 + ["u7"] * 5
    assert found["rank"].tolist() == [1, 2, 3, 4, 5] * 2
    met = {(row.user_id, row.item_id) for row in frame.itertuples()}
    assert not met & {(row.user_id, row.item_id) for row in found.itertuples()}, "met items are left out"
    every = fitted.recommend(users=["u1"], k=60, filter_viewed=False)
    assert len(every) == frame["item_id"].nunique()
    some = fitted.recommend(users=["u1"], items_to_recommend=["i3", "i4"], filter_viewed=False)
    assert set(some["item_id"]) == {"i3", "i4"}
    assert len(fitted.similar(["i3"], k=4)) == 4
    new = fitted.recommend(new_users=[{"user": "ann", "items": ["i3", "i6"]}], k=3)
    assert new["user_id"].tolist() == ["ann"] * 3
    with pytest.raises(DataError, match="nobody"):
        fitted.recommend(users=["nobody"])


def test_the_command_line_knows_the_folder_and_a_second_fit_forgets_the_first(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    model = api.FrameRecommender(SETTINGS, validation=0.0, folder=tmp_path / "model").fit(pl.from_pandas(frame))
    found = model.recommend(users=["u1"], k=3)
    assert isinstance(found, pl.DataFrame)
    assert api.recommend(tmp_path / "model" / "run", ["u1"], 3).select(found.columns).equals(found)
    half = frame[frame["user_id"].isin([f"u{n}" for n in range(40)])]
    model.fit(half)
    with pytest.raises(DataError, match="u70"):
        model.recommend(users=["u70"])


def test_it_is_an_estimator(fitted: api.FrameRecommender) -> None:
    other = clone(fitted).set_params(validation=0.2)
    assert (other.settings, other.validation) == (SETTINGS, 0.2)
    with pytest.raises(ConfigError, match="nothing was learned yet"):
        other.recommend(users=["u1"])
    with pytest.raises(ConfigError, match="epochs: expected some of settings, validation, folder"):
        other.set_params(epochs=3)
    with pytest.raises(ConfigError, match="did you mean train.num_epochs"):
        api.FrameRecommender({"train.num_epoch": 1}).fit(pd.DataFrame({"user_id": ["a"], "item_id": ["b"]}))
