"""Pairs sorted as one number against numpy's sort by two columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.base.pairs import have_repeats, order_of_pairs, sort_pairs

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
