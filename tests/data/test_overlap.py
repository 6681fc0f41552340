"""Given splits must speak of the users and items of training."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from data_sets import Loaded, load

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig

TRAIN = pl.DataFrame({"user_id": ["1", "1", "2", "3"], "item_id": ["x", "y", "x", "y"]})


def load_splits(test: Any, train: Any = TRAIN, **settings: Any) -> Loaded:
    config = DataConfig(train="train", test="test", split={"method": "files"}, **settings)
    return load(config, tables={"train": train, "test": pl.DataFrame(test)})


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({"user_id": [2.5, 3.0], "item_id": ["y", "x"]}, ["none of its 2 users", "'2.5', '3.0'", "'3.0' may be '3'"]),
        ({"user_id": ["2", "3"], "item_id": ["Y", "X "]}, ["none of its 2 items", "'Y' may be 'y'", "'X ' may be 'x'"]),
        (
            {"user_id": ["2"] * 11, "item_id": [f"z{n:02}" for n in range(11)]},
            ["none of its 11 items", "for example 'z00', 'z01', 'z02'; expected items of training"],
        ),
        (
            {"user_id": [f"{n}" for n in range(10, 21)], "item_id": ["x"] * 11},
            ["none of its 11 users", "'10'", "data.columns.user_id"],
        ),
    ],
)
def test_none_in_common(test: Any, expected: list[str], skip: bool) -> None:
    with pytest.raises(DataError) as caught:
        load_splits(test, skip_bad_rows=skip)
    for text in expected:
        assert text in str(caught.value)


def test_so_few_items_may_all_be_new() -> None:
    (warning,) = load_splits({"user_id": ["2"], "item_id": ["z"]}).dataset.warnings
    assert "1 of 1 items of test are not in train, for example 'z'" in warning


def test_some_items_are_told() -> None:
    loaded = load_splits({"user_id": ["2", "3"], "item_id": ["y", "z"]})
    assert loaded.pairs("test") == [("2", "y"), ("3", "z")]
    (warning,) = loaded.dataset.warnings
    assert "1 of 2 items of test are not in train, for example 'z'" in warning


def test_relations_are_training_too() -> None:
    config = DataConfig(
        train="train", test="test", split={"method": "files"}, relations={"cart": {"interactions": "cart"}}
    )  # fmt: skip
    test, cart = ({"user_id": ["2"], "item_id": ["z"]}, {"user_id": ["1"], "item_id": ["z"]})
    tables = {"train": TRAIN, "test": pl.DataFrame(test), "cart": pl.DataFrame(cart)}
    assert load(config, tables=tables).pairs("test") == [("2", "z")]


def test_items_may_all_be_new_where_columns_tell_of_them() -> None:
    new = [f"z{n:02}" for n in range(11)]
    table = pl.DataFrame({"item_id": ["x", "y", *new], "price": range(13)})
    config = DataConfig(
        train="train", test="test", split={"method": "files"},
        nodes={"item": {"table": "items", "columns": {"price": "numeric"}}},
    )  # fmt: skip
    test = pl.DataFrame({"user_id": ["2"] * 11, "item_id": new})
    found = load(config, tables={"train": TRAIN, "test": test, "items": table})
    assert len(found.pairs("test")) == 11
    assert any("11 of 11 items" in warning for warning in found.dataset.warnings)
    written = pl.DataFrame({"user_id": ["2"], "item_id": ["X"]})
    with pytest.raises(DataError, match="'X' may be 'x' there"):
        load(config, tables={"train": TRAIN, "test": written, "items": table})
