"""`group`: the positions of each group's members, found by counting; for few groups."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numba import njit

CHAINS = 4  # of additions, which don't wait for each other


def group(groups: np.ndarray, num_groups: int) -> list[np.ndarray]:
    """For each group, int64, the positions of its members among `groups`, int64 [n] below `num_groups`, ascending."""
    return split(*order_by_group(groups, num_groups))


def split(rows: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    """The first counts[0] rows, and so on. On small batches, `numpy.split` would take longer than all other work."""
    return [rows[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)]


def order_by_group(groups: np.ndarray, num_groups: int) -> tuple[np.ndarray, list[int]]:
    """The stable order by group, int64 [n], and how many are in each group; see `group`."""
    counts_GC = np.zeros((num_groups, CHAINS), np.int64)
    is_inside = _count(groups, counts_GC)
    assert is_inside, "no group has such a number"
    return _place(groups, np.cumsum(counts_GC).reshape(counts_GC.shape) - counts_GC), counts_GC.sum(axis=1).tolist()


@njit(nogil=True, cache=True)
def _count(groups, counts_GC):  # type: ignore[no-untyped-def]
    """Whether all groups are in range. Counts CHAINS runs apart, because an addition waits for the one before it."""
    length = (groups.shape[0] + CHAINS - 1) // CHAINS
    for i in range(length):
        for c in range(CHAINS):
            at = np.uint64(c * length + i)
            if at < np.uint64(groups.shape[0]):
                x = np.uint64(groups[at])
                if x >= np.uint64(counts_GC.shape[0]):
                    return False
                counts_GC[x, np.uint64(c)] += 1
    return True


@njit(nogil=True, cache=True)
def _place(groups, place_GC):  # type: ignore[no-untyped-def]
    order = np.empty(groups.shape[0], np.int64)
    length = (groups.shape[0] + CHAINS - 1) // CHAINS
    for i in range(length):
        for c in range(CHAINS):
            at = np.uint64(c * length + i)
            if at < np.uint64(groups.shape[0]):
                x = np.uint64(groups[at])
                order[np.uint64(place_GC[x, np.uint64(c)])] = np.int64(at)
                place_GC[x, np.uint64(c)] += 1
    return order
