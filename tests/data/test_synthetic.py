"""The synthetic data set has the communities that were planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from data_sets import load

from dist_gat.base.errors import ConfigError
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.synthetic import write_synthetic

SIZES: dict[str, Any] = {"num_users": 60, "num_items": 90, "num_communities": 3, "interactions_per_user": 8}


def read(folder: Path) -> pl.DataFrame:
    table = pl.read_csv(folder / "interactions.csv")
    return table.with_columns(pl.col("user_id", "item_id").str.slice(1).cast(pl.Int64))


def test_planted_communities(tmp_path: Path) -> None:
    table = read(write_synthetic(tmp_path / "new" / "folder", **SIZES, noise=0.2, seed=0))
    assert len(table) == 60 * 8
    assert table.select("user_id", "item_id").n_unique() == len(table)
    same = (table["user_id"] % 3 == table["item_id"] % 3).mean()
    assert same == pytest.approx(0.8, abs=0.05)
    popularity = table.group_by(rank=pl.col("item_id") // 3).len().sort("rank")["len"]
    assert popularity[:10].sum() > 2 * popularity[-10:].sum()


def test_without_noise_no_one_leaves(tmp_path: Path) -> None:
    table = read(write_synthetic(tmp_path, **SIZES, noise=0.0, seed=0))
    assert (table["user_id"] % 3 == table["item_id"] % 3).all()


def test_deterministic_in_the_seed(tmp_path: Path) -> None:
    one, again, other = (
        (write_synthetic(tmp_path / name, **SIZES, noise=0.1, seed=seed) / "interactions.csv").read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == again != other


def test_loads_with_titles(tmp_path: Path) -> None:
    write_synthetic(tmp_path, **SIZES, noise=0.1, seed=0)
    titles = {"path": "items.csv", "id_column": "item_id", "columns": ["title"]}
    found = load(DataConfig(path=str(tmp_path), interactions="interactions.csv", item_titles=titles))
    assert found.dataset.train.has_time
    assert found.dataset.titles is not None
    item = found.items.index_of("i7")
    assert item is not None
    assert found.dataset.titles[item] == "Item 7 of community 1"


@pytest.mark.parametrize(
    "wrong", [{"interactions_per_user": 31}, {"num_users": 0}, {"num_communities": 1, "noise": 0.5}, {"noise": 1.5}]
)
def test_impossible_sizes(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        write_synthetic(tmp_path, **{**SIZES, "noise": 0.0, "seed": 0, **wrong})
