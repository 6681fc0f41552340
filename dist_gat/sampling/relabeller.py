"""`Relabeller`: node IDs of a batch become positions, in order of first appearance."""

from __future__ import annotations

import numpy as np
from numba import njit

from dist_gat.kernels.prefetch import prefetch

NODES_AHEAD = 8  # how far ahead slots are prefetched


class Relabeller:
    """Numbers the nodes of a batch in order of first appearance, with one table for all its hops.

    The table has an entry for each node ID where that takes no more memory than a hash table would (open addressing
    with linear probing, at least twice as many slots as nodes). Kernels write as if every node were new, because a
    branch on that is unpredictable; so `_nodes` has one place more than there are nodes.
    """

    def __init__(self, capacity: int, num_ids: int) -> None:
        """`capacity` bounds the distinct nodes of the whole batch. Node IDs are below `num_ids`."""
        slots = 1 << max(4, int(2 * capacity).bit_length())
        self._is_hash = 4 * num_ids > 16 * slots
        if self._is_hash:
            # node and number side by side, in one cache line
            self._table = np.full((slots, 2), -1, dtype=np.int64)
        else:
            self._table = np.full((max(num_ids, 1), 1), -1, dtype=np.int32)
        self._nodes = np.empty(capacity + 1, dtype=np.int64)
        self._count = 0

    @property
    def nodes(self) -> np.ndarray:
        """int64 [count]: the nodes so far, by number."""
        return self._nodes[: self._count]

    def add(self, nodes: np.ndarray) -> np.ndarray:
        """The number of each node, of the shape of `nodes`; new nodes get the next ones, -1 gets 0.

        Raises `IndexError` where a table by ID meets an ID that is not below `num_ids`.
        """
        numbers = np.empty(nodes.shape, dtype=np.int64)
        number = _number if self._is_hash else _number_by_id
        self._count = number(nodes.ravel(), self._table, self._nodes, self._count, numbers.ravel())
        return numbers

    def find(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: the number of each node, -1 where it has none."""
        return _find(nodes, self._table) if self._is_hash else _find_by_id(nodes, self._table)


@njit(nogil=True, cache=True)
def _find(nodes, table):  # type: ignore[no-untyped-def]
    out = np.empty(nodes.shape[0], dtype=np.int64)
    for i in range(nodes.shape[0]):
        # an empty slot has the number -1
        out[i] = table[_slot(nodes[i], table), 1]
    return out


@njit(nogil=True, cache=True)
def _find_by_id(nodes, table):  # type: ignore[no-untyped-def]
    out = np.empty(nodes.shape[0], dtype=np.int64)
    for i in range(nodes.shape[0]):
        row = np.uint64(nodes[i])
        out[i] = table[row, 0] if row < np.uint64(table.shape[0]) else -1
    return out


@njit(nogil=True, cache=True, inline="always")
def _home(node, table):  # type: ignore[no-untyped-def]
    """The slot at which the search for a node begins."""
    return (np.uint64(node) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & np.uint64(table.shape[0] - 1)


@njit(nogil=True, cache=True, inline="always")
def _slot(node, table):  # type: ignore[no-untyped-def]
    """The slot that has the node, or the empty one where it belongs."""
    slot = _home(node, table)
    while table[slot, 0] != node and table[slot, 0] != -1:
        slot = (slot + np.uint64(1)) & np.uint64(table.shape[0] - 1)
    return slot


@njit(nogil=True, cache=True)
def _number(nodes, table, order, count, out):  # type: ignore[no-untyped-def]
    for i in range(nodes.shape[0]):
        if i + NODES_AHEAD < nodes.shape[0]:
            prefetch(table, np.int64(_home(nodes[i + NODES_AHEAD], table)), 0)
        node = nodes[i]
        if node < 0:
            out[i] = 0
            continue
        slot = _slot(node, table)
        is_new = table[slot, 0] == -1
        number = count if is_new else table[slot, 1]
        table[slot, 0], table[slot, 1] = node, number
        order[np.uint64(count)] = node
        count += is_new
        out[np.uint64(i)] = number
    return count


@njit(nogil=True, cache=True, inline="always")
def _checked(node, table):  # type: ignore[no-untyped-def]
    if np.uint64(node) >= np.uint64(table.shape[0]):
        raise IndexError(
            "a node ID outside of the graph: is the prepared graph damaged? dist-gat prepare makes it again"
        )
    return np.uint64(node)


@njit(nogil=True, cache=True)
def _number_by_id(nodes, table, order, count, out):  # type: ignore[no-untyped-def]
    for i in range(nodes.shape[0]):
        if i + NODES_AHEAD < nodes.shape[0]:
            prefetch(table, max(nodes[i + NODES_AHEAD], 0), 0)
        node = nodes[i]
        if node < 0:
            out[np.uint64(i)] = 0
            continue
        row = _checked(node, table)
        number = np.int64(table[row, 0])
        is_new = number < 0
        number = count if is_new else number
        table[row, 0] = number
        order[np.uint64(count)] = node
        count += is_new
        out[np.uint64(i)] = number
    return count
