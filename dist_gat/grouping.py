"""`group`: positions by group, where there are few groups, by counting them."""

from __future__ import annotations

import numpy as np
from numba import njit


def group(groups: np.ndarray, num_groups: int) -> list[np.ndarray]:
    """For each group, int64, the positions of its members among `groups`, int64 [n] below `num_groups`, ascending."""
    order, counts = order_by_group(groups, num_groups)
    return np.split(order, np.cumsum(counts)[:-1])


def order_by_group(groups: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The stable order by group, int64 [n], and how many are in each group, int64 [num_groups]; see `group`."""
    assert not len(groups) or (groups.min() >= 0 and groups.max() < num_groups), "no group has such a number"
    return _count_sort(groups, num_groups)


@njit(nogil=True, cache=True)
def _count_sort(groups, num_groups):  # type: ignore[no-untyped-def]
    counts = np.zeros(num_groups, np.int64)
    for x in groups:
        counts[np.uint64(x)] += 1
    place = np.cumsum(counts) - counts
    order = np.empty(groups.shape[0], np.int64)
    for i in range(groups.shape[0]):
        x = np.uint64(groups[i])
        order[np.uint64(place[x])] = i
        place[x] += 1
    return order, counts
