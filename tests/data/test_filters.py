"""Users and items of few interactions, and users of too many, leave: against a count in plain Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_sets import load

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig

FEW_USERS, FEW_ITEMS, MOST = "rows of users with too few", "rows of items with too few", "rows of users with too many"
Pairs = set[tuple[int, int]]


def random_pairs(seed: int) -> Pairs:
    """Of 30 users and 25 items, some of which come far more often."""
    draw = np.random.default_rng(seed)
    return set(zip((draw.integers(0, 30, 150) * draw.random(150)).astype(int).tolist(),
                   (draw.integers(0, 25, 150) * draw.random(150)).astype(int).tolist(), strict=True))  # fmt: skip


def left(pairs: Pairs, users: int, items: int, k_core: bool, most: int | None) -> tuple[Pairs, Counter[str]]:
    """What stays, and how many pairs go for which reason."""
    gone: Counter[str] = Counter()

    def keep(place: int, reason: str, fits: Any) -> None:
        nonlocal pairs
        count = Counter(pair[place] for pair in pairs)
        stay = {pair for pair in pairs if fits(count[pair[place]])}
        gone[reason] += len(pairs) - len(stay)
        pairs = stay

    if most:
        keep(0, MOST, lambda count: count <= most)
    while True:
        before = len(pairs)
        keep(1, FEW_ITEMS, lambda count: count >= items)
        keep(0, FEW_USERS, lambda count: count >= users)
        if not k_core or len(pairs) == before:
            return pairs, +gone


@pytest.mark.parametrize("rows", [7, 1 << 20])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("users", "items", "k_core", "most"),
    [(0, 0, False, None), (3, 0, False, None), (0, 4, False, None), (3, 4, False, None), (4, 4, True, None),
     (3, 4, True, None), (0, 0, False, 9), (4, 4, True, 15), (2, 2, False, 12)],
)  # fmt: skip
def test_what_is_left(users: int, items: int, k_core: bool, most: int | None, seed: int, rows: int) -> None:
    pairs = random_pairs(seed)
    frame = pl.DataFrame(sorted(pairs), ["user_id", "item_id"], orient="row")
    config = DataConfig(
        interactions="t", split={"valid_ratio": 0, "test_ratio": 0}, min_user_interactions=users,
        min_item_interactions=items, k_core=k_core, max_user_interactions=most,
    )  # fmt: skip
    loaded = load(config, rows=rows, tables={"t": frame})
    expected, gone = left(pairs, users, items, k_core, most)
    assert loaded.pairs() == sorted(expected)
    assert loaded.users.to_list() == sorted({user for user, _ in expected})
    assert loaded.items.to_list() == sorted({item for _, item in expected})
    assert loaded.dataset.dropped == {f"{reason} interactions": count for reason, count in gone.items()}


@pytest.mark.parametrize("method", ["random", "temporal", "leave_last_out"])
def test_the_split_is_of_what_is_left(method: Any) -> None:
    """As if the table had nothing else."""
    pairs = random_pairs(2)
    whole = pl.DataFrame(sorted(pairs), ["user_id", "item_id"], orient="row").with_row_index("timestamp")
    kept, _ = left(pairs, 4, 3, True, None)
    some = whole.filter([pair in kept for pair in zip(whole["user_id"], whole["item_id"], strict=True)])
    core: Any = {"min_user_interactions": 4, "min_item_interactions": 3, "k_core": True}
    one = load(DataConfig(interactions="t", split={"method": method}, **core), tables={"t": whole})
    other = load(DataConfig(interactions="t", split={"method": method}), tables={"t": some})
    for split in ("train", "valid", "test"):
        assert one.rows(split) == other.rows(split)


def test_labels_and_times_stay_with_their_pairs() -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "rating": [3, 4, 5], "timestamp": [7, 8, 9]})
    config = DataConfig(interactions="t", split={"valid_ratio": 0, "test_ratio": 0}, min_user_interactions=2)
    assert load(config, tables={"t": frame}).rows() == [(1, 1, 3, 7_000_000), (1, 2, 4, 8_000_000)]


def test_given_splits_count_together_and_repeated_pairs_once() -> None:
    train = pl.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [1, 2, 1, 1, 2]})
    test = pl.DataFrame({"user_id": [1, 3], "item_id": [3, 1]})
    config = DataConfig(train="a", test="b", split={"method": "files"}, min_user_interactions=2)
    loaded = load(config, tables={"a": train, "b": test})
    assert loaded.pairs("train") == [(1, 1), (1, 2), (3, 2)]
    assert loaded.pairs("test") == [(1, 3), (3, 1)]
    assert loaded.dataset.dropped == {f"{FEW_USERS} interactions": 1}


def test_nothing_left() -> None:
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2]})
    with pytest.raises(DataError, match=r"t: no interaction is left for training; data\.min_user_interactions"):
        load(DataConfig(interactions="t", min_item_interactions=5), tables={"t": frame})
