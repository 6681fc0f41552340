"""Ownership by ranges, against a table of all nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.graph.ranges import NodeRanges, intervals_of, parts_of_ranks

TYPES = ("user", "item")

COUNTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6).filter(
    lambda counts: any(map(any, counts))
)


def ranges_of(counts: list[tuple[int, int]]) -> NodeRanges:
    ends = np.cumsum(np.array(counts).ravel())
    starts = np.concatenate([[0], ends[:-1]]).reshape(-1, 2)
    return NodeRanges(np.concatenate([starts, ends[1::2, None]], axis=1), TYPES)


@given(
    st.lists(st.integers(-9, 9), max_size=12),
    st.lists(st.integers(-12, 12), max_size=40),
    st.sampled_from([1, 7, 1 << 20, 1 << 58]),
)
def test_intervals_are_those_of_a_binary_search(starts: list[int], values: list[int], scale: int) -> None:
    """With so many values that buckets are worth it; some are wide, and some differences take more than 63 bits."""
    ascending = scale * np.sort(np.array(starts, dtype=np.int64))
    table = np.add.outer(scale * np.array(values, dtype=np.int64), [-1, 0, 1]).ravel()
    found = intervals_of(ascending, np.tile(table, 70))[: len(table)]
    assert found.tolist() == (np.searchsorted(ascending, table, side="right") - 1).tolist()
    assert intervals_of(ascending, table[:, None]).shape == (len(table), 1)


@given(COUNTS)
def test_part_and_type_of_every_node_also_beside_empty_ranges(counts: list[tuple[int, int]]) -> None:
    ranges = ranges_of(counts)
    parts = [part for part, both in enumerate(counts) for _ in range(sum(both))]
    types = [kind for both in counts for kind in range(2) for _ in range(both[kind])]
    nodes = np.arange(ranges.num_nodes)
    assert ranges.num_nodes == len(parts)
    assert ranges.num_parts == len(counts)
    assert ranges.part_of(nodes).tolist() == parts
    assert ranges.type_of(nodes).tolist() == types
    for part in range(len(counts)):
        for kind, name in enumerate(TYPES):
            owned = [n for n in nodes.tolist() if parts[n] == part and types[n] == kind]
            assert list(ranges.nodes_of_type(part, name)) == owned
        assert ranges.starts[part + 1] - ranges.starts[part] == sum(counts[part])
    assert [ranges.count(name) for name in TYPES] == [types.count(kind) for kind in range(2)]
    for kind, name in enumerate(TYPES):
        assert ranges.is_of_type(nodes, name).tolist() == [found == kind for found in types]


@given(st.integers(1, 300).flatmap(lambda parts: st.tuples(st.just(parts), st.integers(1, parts))))
def test_ranks_own_even_runs_of_parts(case: tuple[int, int]) -> None:
    num_parts, world_size = case
    owned = np.diff(parts_of_ranks(num_parts, world_size))
    assert len(owned) == world_size
    assert owned.sum() == num_parts
    assert owned.min() >= 1
    assert owned.max() - owned.min() <= 1


@pytest.mark.parametrize("world_size", [0, 5])
def test_there_are_no_more_ranks_than_parts(world_size: int) -> None:
    with pytest.raises(AssertionError):
        parts_of_ranks(4, world_size)
