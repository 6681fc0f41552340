"""Where rows of several types lie in one message."""

from __future__ import annotations

import numpy as np

from dist_gat.graph.ranges import NodeRanges
from dist_gat.sampling.packing import Segment, count_types, pack

RANGES = NodeRanges(np.array([[0, 3, 5], [5, 5, 9]]), ("user", "item"))  # users 0 to 2, items 3 and 4; items 5 to 8


def test_rows_are_packed_by_rank_and_type() -> None:
    # of rank 0 a user and two items, of rank 1 nothing, of rank 2 an item
    sizes = {"user": 2, "item": 3}
    num_rows = count_types(np.array([1, 3, 8, 6]), [3, 0, 1], sizes, RANGES)
    assert num_rows == [[1, 2], [0, 0], [0, 1]]
    segments, totals = pack(num_rows, sizes)
    assert totals == [2 + 2 * 3, 0, 3]
    assert segments == [
        Segment("user", slice(0, 1), slice(0, 2)), Segment("item", slice(1, 3), slice(2, 8)),
        Segment("user", slice(3, 3), slice(8, 8)), Segment("item", slice(3, 3), slice(8, 8)),
        Segment("user", slice(3, 3), slice(8, 8)), Segment("item", slice(3, 4), slice(8, 11)),
    ]  # fmt: skip


def test_types_without_features_take_no_room() -> None:
    num_rows = count_types(np.array([3, 4]), [2], {"item": 1}, RANGES)
    assert pack(num_rows, {"item": 1}) == ([Segment("item", slice(0, 2), slice(0, 2))], [2])
