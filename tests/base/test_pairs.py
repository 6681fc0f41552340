"""Pairs sorted as one number against numpy's sort by two columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.base.pairs import have_repeats, order_of_pairs, pairs_of, sort_pairs

numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**31 - 1))


@given(st.lists(st.tuples(numbers, numbers)))
def test_the_order_is_that_of_two_columns(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array([pair[column] for pair in pairs], dtype=np.int64) for column in (0, 1))
    assert list(zip(*(column.tolist() for column in sort_pairs(first, second)), strict=True)) == sorted(pairs)
    order = order_of_pairs(first, second)
    assert sorted(order.tolist()) == list(range(len(pairs)))
    assert [pairs[place] for place in order] == sorted(pairs)
    assert have_repeats(first, second) == (len(set(pairs)) < len(pairs))


def test_numbers_too_large_for_one_are_refused() -> None:
    large = np.array([2**32 - 1])
    with pytest.raises(AssertionError, match="63 bits"):
        sort_pairs(large, large)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=40, unique=True),
    st.lists(st.integers(0, 13), max_size=8, unique=True),
)
def test_pairs_of_some_firsts_are_those_that_a_filter_finds(pairs: list[tuple[int, int]], firsts: list[int]) -> None:
    table = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    chosen = np.array(sorted(firsts), dtype=np.int64)
    assert pairs_of(table, chosen).tolist() == [list(pair) for pair in sorted(pairs) if pair[0] in firsts]


def test_pairs_of_everyone_are_not_copied() -> None:
    table = np.array([[0, 1], [0, 2], [3, 1]])
    assert pairs_of(table, np.array([0, 2, 3])) is table
