"""Positions by group."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dist_gat.kernels.grouping import group


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(st.just(n), arrays(np.int64, st.integers(0, 40), elements=st.integers(0, n - 1)))
    )
)
def test_every_position_is_in_its_group(case: tuple[int, np.ndarray]) -> None:
    num_groups, groups = case
    members = group(groups, num_groups)
    assert len(members) == num_groups
    for number, positions in enumerate(members):
        np.testing.assert_array_equal(positions, np.flatnonzero(groups == number))


@pytest.mark.parametrize("number", [-1, 3])
def test_a_group_that_there_is_not_is_refused(number: int) -> None:
    with pytest.raises(AssertionError, match="no group"):
        group(np.array([0, number, 1]), 3)
