"""Cold items and users: chosen by ID alone, held out whole, with the other pairs split as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_sets import Loaded, load

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.split import SPLITS

USERS, ITEMS = 60, 40


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    pairs = sorted({(int(u), int(i)) for u, i in rng.integers((USERS, ITEMS), size=(900, 2))})
    frame = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    return frame.with_columns(datetime=pl.Series(rng.permutation(len(pairs)) + 10**9), weight=pl.lit(2.0))


def loaded(folder: Path, table: pl.DataFrame, seed: int = 0, rows: int | None = None, **split: Any) -> Loaded:
    table.write_parquet(folder / "rows.parquet")
    settings = {"method": "random", "valid_ratio": 0.1, "test_ratio": 0.1, **split}
    return load(DataConfig(path=str(folder), interactions="rows.parquet", split=settings), seed, rows)


def items_of(found: Loaded, split: str) -> set[int]:
    return {item for _, item in found.pairs(split)}


@pytest.mark.parametrize("method", ["random", "temporal", "leave_last_out"])
def test_nobody_meets_a_cold_item_in_training(tmp_path: Path, table: pl.DataFrame, method: str) -> None:
    found = loaded(tmp_path, table, method=method, cold_items=0.2)
    cold = {name: {found.items[int(n)] for n in np.flatnonzero(found.dataset.cold.items == number)}
            for number, name in enumerate(SPLITS)}  # fmt: skip
    assert (len(cold["test"]), len(cold["valid"])) == (ITEMS // 5, ITEMS // 10)
    for split in ("valid", "test"):
        others = set(SPLITS) - {split}
        assert not cold[split] & set.union(*(items_of(found, other) for other in others))
        wanted = {tuple(row) for row in table.select("user_id", "item_id").rows() if row[1] in cold[split]}
        assert wanted == {pair for pair in found.pairs(split) if pair[1] in cold[split]}
    # the others are split as if these were not there
    warm = table.filter(~pl.col("item_id").is_in(list(cold["valid"] | cold["test"])))
    plain = loaded(tmp_path, warm, method=method)
    gone = cold["valid"] | cold["test"]
    assert [[p for p in found.pairs(s) if p[1] not in gone] for s in SPLITS] == [plain.pairs(s) for s in SPLITS]


def test_the_choice_depends_on_ids_and_the_seed_alone(tmp_path: Path, table: pl.DataFrame) -> None:
    first = loaded(tmp_path, table, cold_items=0.2, cold_users=0.1)
    shuffled = loaded(
        tmp_path, table.sample(fraction=1.0, shuffle=True, seed=1), rows=97, cold_items=0.2, cold_users=0.1
    )
    assert [first.rows(split) for split in SPLITS] == [shuffled.rows(split) for split in SPLITS]
    other = loaded(tmp_path, table, seed=1, cold_items=0.2, cold_users=0.1)
    assert items_of(other, "train") != items_of(first, "train")


def test_with_merge_valid_the_items_of_validation_are_as_any_others(tmp_path: Path, table: pl.DataFrame) -> None:
    before, after = (loaded(tmp_path, table, cold_items=0.2, merge_valid=merge) for merge in (False, True))
    assert before.pairs("test") == after.pairs("test")
    assert sorted(before.pairs("train") + before.pairs("valid")) == after.pairs("train")
    assert set(after.dataset.cold.items.tolist()) == {0, 2}


def test_with_merge_valid_the_users_of_validation_are_trained_on(tmp_path: Path, table: pl.DataFrame) -> None:
    before, after = (loaded(tmp_path, table, cold_users=0.2, merge_valid=merge) for merge in (False, True))
    assert before.pairs("test") == after.pairs("test")
    assert len(after.users) == len(before.users) + USERS // 10
    assert set(after.dataset.cold.pairs) == {"test"}
    count = before.dataset.cold.pairs["valid"].count
    assert len(after.pairs("train")) == len(before.pairs("train")) + len(before.pairs("valid")) + count


def test_a_file_names_them(tmp_path: Path, table: pl.DataFrame) -> None:
    (tmp_path / "cold.txt").write_text("item_id\n3\n5\n8\n13\nnobody\n")
    found = loaded(tmp_path, table, cold_items="cold.txt")
    assert not {3, 5, 8, 13} & (items_of(found, "train") | items_of(found, "valid"))
    assert any("1 IDs have no interaction, for example 'nobody'" in warning for warning in found.dataset.warnings)
    assert int((found.dataset.cold.items == 1).sum()) == 2
    (tmp_path / "cold.txt").write_text("nobody\n")
    with pytest.raises(DataError, match="none of its 1 IDs"):
        loaded(tmp_path, table, cold_items="cold.txt")
    with pytest.raises(DataError, match="can't be read"):
        loaded(tmp_path, table, cold_items="no-such-file.txt")


def test_given_splits_keep_the_others_where_they_are(tmp_path: Path, table: pl.DataFrame) -> None:
    for number, split in enumerate(SPLITS):
        table.filter(pl.int_range(pl.len()) % 3 == number).write_parquet(tmp_path / f"{split}.parquet")
    settings: dict[str, Any] = {"path": str(tmp_path), **{split: f"{split}.parquet" for split in SPLITS}}
    plain = load(DataConfig(**settings, split={"method": "files"}))
    found = load(DataConfig(**settings, split={"method": "files", "cold_items": 0.2}))
    gone = {found.items[int(n)] for n in np.flatnonzero(np.isin(found.dataset.cold.items, [1, 2]))}
    assert not gone & items_of(found, "train")
    trained = {user for user, _ in found.pairs("train")}
    for split in SPLITS:
        # a user all of whose training items are cold has none
        kept = [pair for pair in plain.pairs(split) if pair[1] not in gone and pair[0] in trained]
        assert kept == [pair for pair in found.pairs(split) if pair[1] not in gone]


def test_cold_users_are_no_nodes_and_lose_nothing(tmp_path: Path, table: pl.DataFrame) -> None:
    found = loaded(tmp_path, table, cold_users=0.2)
    assert len(found.users) == USERS - USERS // 5 - USERS // 10
    apart = found.dataset.cold.pairs
    assert set(apart) == {"valid", "test"}
    held_out = sum(edges.count for edges in apart.values())
    assert held_out == len(table.filter(~pl.col("user_id").is_in(found.users.to_list())))
    assert held_out + sum(len(found.pairs(split)) for split in SPLITS) == len(table)
