"""Uniform neighbour sampling without replacement, and relabelling, as nogil numba kernels.

The sample of a destination is a pure function of (key, node): Floyd's algorithm (Bentley, Floyd: A Sample
of Brilliance, CACM 1987) over the positions of its row, each draw a hash of the key, the node and the
draw's number. Hidden edges are taken out of the row first, so the sample stays uniform over the rest.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from dist_gat.random import fold, to_unit

ROWS_PER_TASK = 4096


@dataclass(frozen=True)
class HiddenEdges:
    """Edges that no message may use in this step: for each destination, its hidden sources.

    dst: int64 [h], distinct and ascending; src[ptr[j]:ptr[j + 1]] are the hidden sources of dst[j], ascending.
    """

    dst: np.ndarray
    ptr: np.ndarray
    src: np.ndarray


def hide_pairs(pairs: np.ndarray) -> HiddenEdges:
    """Hide int64 [m, 2] node pairs in both directions."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    # an edge counts once, however often it is given
    both = both[np.append(True, (both[1:] != both[:-1]).any(axis=1))[: len(both)]]
    distinct, first = np.unique(both[:, 0], return_index=True)
    return HiddenEdges(distinct, np.append(first, len(both)).astype(np.int64), np.ascontiguousarray(both[:, 1]))


def sample_rows(
    indptr: np.ndarray,
    indices: np.ndarray,
    first_node: int,
    nodes: np.ndarray,
    fan_out: int,
    key: np.uint64,
    hidden: HiddenEdges,
    pool: ThreadPoolExecutor | None = None,
) -> np.ndarray:
    """Sample up to `fan_out` in-neighbours of each of `nodes`, all of which belong to one part.

    Returns int64 [n, fan_out] source node IDs, -1 behind the last one of a row.
    """
    out = np.empty((len(nodes), fan_out), dtype=np.int64)
    slices = [slice(i, i + ROWS_PER_TASK) for i in range(0, len(nodes), ROWS_PER_TASK)]

    def task(rows: slice) -> None:
        _sample(
            indptr, indices, first_node, nodes[rows], key, hidden.dst, hidden.ptr, hidden.src, out[rows]
        )  # fmt: skip

    list(map(task, slices) if pool is None else pool.map(task, slices))
    return out


@njit(nogil=True, cache=True)
def _sample(indptr, indices, first_node, nodes, key, hidden_dst, hidden_ptr, hidden_src, out):  # type: ignore[no-untyped-def]
    fan_out = out.shape[1]
    chosen = np.empty(fan_out, dtype=np.int64)
    for i in range(nodes.shape[0]):
        node = nodes[i]
        start, stop = indptr[node - first_node], indptr[node - first_node + 1]
        at = np.searchsorted(hidden_dst, node)
        blocked = hidden_src[:0]
        if at < hidden_dst.shape[0] and hidden_dst[at] == node:
            candidates = hidden_src[hidden_ptr[at] : hidden_ptr[at + 1]]
            positions = start + np.searchsorted(indices[start:stop], candidates)
            count = 0
            for j in range(candidates.shape[0]):
                if positions[j] < stop and indices[positions[j]] == candidates[j]:
                    positions[count] = positions[j]
                    count += 1
            blocked = positions[:count]
        free = stop - start - blocked.shape[0]
        taken = min(free, fan_out)
        node_key = fold(key, np.uint64(node))
        for j in range(taken):
            if free <= fan_out:
                pick = np.int64(j)
            else:
                top = free - fan_out + j
                pick = np.int64(to_unit(fold(node_key, np.uint64(j))) * (top + 1))
                for c in range(j):
                    if chosen[c] == pick:
                        pick = top
                        break
                chosen[j] = pick
            position = start + pick
            # skip the blocked positions, which ascend
            for b in range(blocked.shape[0]):
                if blocked[b] <= position:
                    position += 1
                else:
                    break
            out[i, j] = indices[position]
        for j in range(taken, fan_out):
            out[i, j] = -1


class Relabeller:
    """Numbers the nodes of a batch in order of first appearance, with one hash table for all its hops.

    Open addressing with linear probing; the table has at least twice as many slots as nodes.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity` bounds the distinct nodes of the whole batch."""
        slots = 1 << max(4, int(2 * capacity).bit_length())
        self._keys = np.full(slots, -1, dtype=np.int64)
        self._values = np.empty(slots, dtype=np.int64)
        self._nodes = np.empty(capacity, dtype=np.int64)
        self._count = 0

    @property
    def nodes(self) -> np.ndarray:
        """int64 [count]: the nodes so far, by number."""
        return self._nodes[: self._count]

    def add(self, nodes: np.ndarray) -> np.ndarray:
        """The number of each node, of the shape of `nodes`; new nodes get the next ones, -1 gets 0."""
        numbers = np.empty(nodes.shape, dtype=np.int64)
        self._count = _number(nodes.ravel(), self._keys, self._values, self._nodes, self._count, numbers.ravel())
        return numbers


@njit(nogil=True, cache=True)
def _number(nodes, keys, values, order, count, out):  # type: ignore[no-untyped-def]
    mask = np.uint64(keys.shape[0] - 1)
    for i in range(nodes.shape[0]):
        node = nodes[i]
        if node < 0:
            out[i] = 0
            continue
        slot = (np.uint64(node) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
        while keys[slot] != node and keys[slot] != -1:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == -1:
            keys[slot] = node
            values[slot] = count
            order[count] = node
            count += 1
        out[i] = values[slot]
    return count
