"""Splits are complete, disjoint, independent of the order of rows, and what their names say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_gat.base.errors import DataError
from dist_gat.config.sections import SplitConfig
from dist_gat.data.split import SPLITS, from_rank, split_interactions

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
    split = SplitConfig(method=method, valid_ratio=0.2, test_ratio=0.3)
    parts = split_interactions(table, split, seed=1)
    assert tuple(parts) == SPLITS
    assert sorted(row for part in parts.values() for row in part.rows()) == sorted(table.rows())
    shuffled = split_interactions(table[list(order)], split, seed=1)
    assert {s: sorted(p.rows()) for s, p in shuffled.items()} == {s: sorted(p.rows()) for s, p in parts.items()}


def test_random_has_exact_counts_and_depends_on_the_seed() -> None:
    table = pl.DataFrame({"user_id": [u for u in range(40) for _ in range(25)], "item_id": list(range(25)) * 40})
    split = SplitConfig(method="random", valid_ratio=0.1, test_ratio=0.25)
    parts = split_interactions(table, split, seed=0)
    assert [len(parts[name]) for name in SPLITS] == [650, 100, 250]
    assert not parts["test"].equals(split_interactions(table, split, seed=1)["test"])
    per_user = parts["test"].group_by("user_id").len()["len"].to_list()
    per_item = parts["test"].group_by("item_id").len()["len"].to_list()
    assert len(per_user) == 40  # neither users nor items fall on one side as a whole
    assert max(per_user) < 15
    assert len(per_item) == 25


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, unique=True), st.data())
def test_rows_from_a_rank_on_are_those_of_a_sort(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    columns = tuple(np.array(column) for column in zip(*rows, strict=True))
    first = data.draw(st.integers(0, len(rows)))
    assert set(np.flatnonzero(from_rank(columns, first))) == set(np.lexsort(columns)[first:])


def test_random_is_the_same_for_ever() -> None:
    """The split of a prepared data set must not change with a release: this is what it was at first."""
    table = pl.DataFrame({"user_id": ["a", "a", "b", "b", "c"], "item_id": [1, 2, 1, 2, 1]})
    parts = split_interactions(table, SplitConfig(method="random", valid_ratio=0.2, test_ratio=0.2), seed=7)
    assert (parts["valid"].rows(), parts["test"].rows()) == ([("b", 2)], [("c", 1)])


def test_temporal_keeps_ties_together() -> None:
    table = table_of([(0, i) for i in range(10)], [0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
    parts = split_interactions(table, SplitConfig(method="temporal", valid_ratio=0.2, test_ratio=0.1), seed=0)
    assert [part["datetime"].to_list() for part in parts.values()] == [[0, 1, 2, 3, 4, 5, 6], [], [7, 7, 7]]
    parts = split_interactions(table, SplitConfig(method="temporal", valid_ratio=0.5, test_ratio=0.0), seed=0)
    assert [len(part) for part in parts.values()] == [5, 5, 0]


def test_leave_last_out() -> None:
    pairs = [(1, 1), (2, 5), (2, 4), (3, 9), (3, 8), (3, 7), (3, 6)]
    table = table_of(pairs, [0, 9, 9, 4, 3, 3, 1])
    parts = split_interactions(table, SplitConfig(method="leave_last_out"), seed=0)
    assert {name: sorted(part.select("user_id", "item_id").rows()) for name, part in parts.items()} == {
        "train": [(1, 1), (2, 4), (3, 6), (3, 7)],
        "valid": [(3, 8)],  # the tie at time 3 goes by item
        "test": [(2, 5), (3, 9)],
    }


@pytest.mark.parametrize("method", ["temporal", "leave_last_out"])
def test_time_is_needed(method: str) -> None:
    table = pl.DataFrame({"user_id": [1], "item_id": [1]})
    with pytest.raises(DataError, match=f"{method}.*data.columns.datetime=NAME"):
        split_interactions(table, SplitConfig(method=method), seed=0)
