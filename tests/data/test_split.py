"""Splits are complete, disjoint, independent of the order of rows, and what their names say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from data_sets import load, split_table
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig, SplitConfig
from dist_gat.data import split
from dist_gat.data.split import SPLITS

METHODS = ("random", "temporal", "leave_last_out")
PAIRS = st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40)


def table_of(pairs: list[tuple[int, int]], times: list[int]) -> pl.DataFrame:
    users, items = zip(*pairs, strict=True)
    return pl.DataFrame({"user_id": users, "item_id": items, "datetime": times})


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_complete_disjoint_and_independent_of_order(method: str, data: st.DataObject) -> None:
    pairs = sorted(data.draw(PAIRS))
    times = data.draw(st.lists(st.integers(0, 20), min_size=len(pairs), max_size=len(pairs)))
    order = data.draw(st.permutations(range(len(pairs))))
    table = table_of(pairs, times)
    config = SplitConfig(method=method, valid_ratio=0.2, test_ratio=0.3)
    parts = split_table(table, config, seed=1)
    assert tuple(parts) == SPLITS
    assert sorted(row for part in parts.values() for row in part.rows()) == sorted(table.rows())
    shuffled = split_table(table[list(order)], config, seed=1)
    assert {s: sorted(p.rows()) for s, p in shuffled.items()} == {s: sorted(p.rows()) for s, p in parts.items()}


def test_random_has_exact_counts_and_depends_on_the_seed() -> None:
    table = pl.DataFrame({"user_id": [u for u in range(40) for _ in range(25)], "item_id": list(range(25)) * 40})
    config = SplitConfig(method="random", valid_ratio=0.1, test_ratio=0.25)
    parts = split_table(table, config, seed=0)
    assert [len(parts[name]) for name in SPLITS] == [650, 100, 250]
    assert not parts["test"].equals(split_table(table, config, seed=1)["test"])
    per_user = parts["test"].group_by("user_id").len()["len"].to_list()
    per_item = parts["test"].group_by("item_id").len()["len"].to_list()
    assert len(per_user) == 40  # neither users nor items fall on one side as a whole
    assert max(per_user) < 15
    assert len(per_item) == 25


VALUES = st.one_of(st.integers(0, 2**64 - 1), st.integers(2**63 - 3, 2**63 + 3), st.integers(0, 2**18))


@given(st.lists(VALUES, min_size=1, max_size=50), st.data())
def test_the_value_at_a_rank_is_that_of_a_sort(values: list[int], data: st.DataObject) -> None:
    rank, size = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(1, 7))
    keys = np.array(values, dtype=np.uint64)
    chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
    for at_once in (1 << 20, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(split, "AT_ONCE", at_once)
            found = split.value_at_rank(lambda: iter(chunks), rank)
        assert found == (sorted(values)[rank], sum(value < sorted(values)[rank] for value in values))


@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_chunks_changes_nothing(method: str) -> None:
    rng = np.random.default_rng(0)
    pairs = sorted({(int(u), int(i)) for u, i in rng.integers(0, 30, (400, 2))})
    table = table_of(pairs, rng.integers(0, 50, len(pairs)).tolist())
    config = SplitConfig(method=method, valid_ratio=0.2, test_ratio=0.1)
    whole = split_table(table, config, 3)
    for rows in (1, 7, 100):
        assert all(part.equals(whole[name]) for name, part in split_table(table, config, 3, rows).items())


def test_random_is_the_same_for_ever() -> None:
    """The split of a prepared data set must not change with a release: this is what it was at first."""
    table = pl.DataFrame({"user_id": ["a", "a", "b", "b", "c"], "item_id": [1, 2, 1, 2, 1]})
    parts = split_table(table, SplitConfig(method="random", valid_ratio=0.2, test_ratio=0.2), seed=7)
    assert (parts["valid"].rows(), parts["test"].rows()) == ([("b", 2)], [("c", 1)])


def test_temporal_keeps_ties_together() -> None:
    table = table_of([(0, i) for i in range(10)], [0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
    parts = split_table(table, SplitConfig(method="temporal", valid_ratio=0.2, test_ratio=0.1), seed=0)
    assert [part["datetime"].to_list() for part in parts.values()] == [[0, 1, 2, 3, 4, 5, 6], [], [7, 7, 7]]
    parts = split_table(table, SplitConfig(method="temporal", valid_ratio=0.5, test_ratio=0.0), seed=0)
    assert [len(part) for part in parts.values()] == [5, 5, 0]


def test_leave_last_out() -> None:
    pairs = [(1, 1), (2, 5), (2, 4), (3, 9), (3, 8), (3, 7), (3, 6)]
    table = table_of(pairs, [0, 9, 9, 4, 3, 3, 1])
    parts = split_table(table, SplitConfig(method="leave_last_out"), seed=0)
    assert {name: sorted(part.select("user_id", "item_id").rows()) for name, part in parts.items()} == {
        "train": [(1, 1), (2, 4), (3, 6), (3, 7)],
        "valid": [(3, 8)],  # the tie at time 3 goes by item
        "test": [(2, 5), (3, 9)],
    }


@pytest.mark.parametrize("method", ["temporal", "leave_last_out"])
def test_time_is_needed(method: str) -> None:
    table = pl.DataFrame({"user_id": [1], "item_id": [1]})
    with pytest.raises(DataError, match=f"{method}.*data.columns.datetime=NAME"):
        load(DataConfig(interactions="t", split=SplitConfig(method=method)), tables={"t": table})
