"""Uniform neighbour sampling without replacement, and relabelling, as nogil numba kernels.

The sample of a destination is a pure function of (key, node): Floyd's algorithm (Bentley, Floyd: A Sample
of Brilliance, CACM 1987) over the positions of its row, each draw a hash of the key, the node and the
draw's number. Hidden edges are taken out of the row first, so the sample stays uniform over the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from dist_gat.base.pairs import sort_pairs
from dist_gat.base.random import fold, to_unit
from dist_gat.kernels.prefetch import prefetch

GROUP = 128
NODES_AHEAD = 8  # whose slots are prefetched
STARTS_AHEAD = 16  # whose place among the neighbours is prefetched


@dataclass(frozen=True)
class HiddenEdges:
    """Edges that no message may use in this step: for each destination, its hidden sources.

    dst: int64 [h], distinct and ascending; src[ptr[j]:ptr[j + 1]] are the hidden sources of dst[j], ascending.
    may_hide: bool [power of two], false where no hidden destination has these lowest bits of the ID.
    """

    dst: np.ndarray
    ptr: np.ndarray
    src: np.ndarray
    may_hide: np.ndarray


def hide_pairs(pairs: np.ndarray) -> HiddenEdges:
    """Hide int64 [m, 2] node pairs in both directions."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    dst, src = sort_pairs(both[:, 0], both[:, 1])
    # an edge counts once, however often it is given
    is_new = np.append(True, (dst[1:] != dst[:-1]) | (src[1:] != src[:-1]))[: len(dst)]
    dst, src = dst[is_new], src[is_new]
    distinct, first = np.unique(dst, return_index=True)
    may_hide = np.zeros(1 << int(8 * len(distinct)).bit_length(), dtype=np.bool_)
    may_hide[distinct & (len(may_hide) - 1)] = True
    ptr = np.append(first, len(dst)).astype(np.int64)
    return HiddenEdges(distinct, ptr, src, may_hide)


def sample_rows(
    indptr: np.ndarray,
    indices: np.ndarray,
    first_node: int,
    nodes: np.ndarray,
    fan_out: int,
    key: np.uint64,
    hidden: HiddenEdges,
) -> np.ndarray:
    """Sample up to `fan_out` in-neighbours of each of `nodes`, all of which belong to one part.

    Returns int64 [n, fan_out] source node IDs, -1 behind the last one of a row.
    """
    out = np.empty((len(nodes), fan_out), dtype=np.int64)
    sample_into(out, np.arange(len(nodes)), indptr, indices, first_node, nodes, key, hidden)
    return out


def sample_into(
    out: np.ndarray,
    places: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    first_node: int,
    nodes: np.ndarray,
    key: np.uint64,
    hidden: HiddenEdges,
) -> None:
    """`sample_rows`, written to the rows `places`, int64 [n], of `out`, [m, fan_out], whose type holds node IDs."""
    assert len(nodes) == len(places), "as many places as nodes"
    is_inside = _sample(
        indptr, indices, first_node, nodes, key, hidden.dst, hidden.ptr, hidden.src, hidden.may_hide, out, places
    )  # fmt: skip
    assert is_inside, "places outside of the array"


@njit(nogil=True, cache=True, inline="always")
def _draw(key, free, picks):  # type: ignore[no-untyped-def]
    """Write to the first of `picks` as many distinct positions below `free` as there are, or as there is room for."""
    fan_out = picks.shape[0]
    if free <= fan_out:
        for j in range(free):
            picks[np.uint64(j)] = j
        return
    for j in range(fan_out):
        picks[np.uint64(j)] = np.int64(to_unit(fold(key, np.uint64(j))) * (free - fan_out + j + 1))
    for j in range(1, fan_out):
        pick = picks[np.uint64(j)]
        # a number, because the compiler makes no vectors of booleans; a choice, because nobody predicts the branch
        is_taken = np.int64(0)
        for c in range(j):
            is_taken |= np.int64(picks[np.uint64(c)] == pick)
        picks[np.uint64(j)] = free - fan_out + j if is_taken else pick


@njit(nogil=True, cache=True)
def _pass_over(blocked, picks, count):  # type: ignore[no-untyped-def]
    """Make positions among those that are not blocked, of which there are `count`, positions among all."""
    for j in range(count):
        # blocked positions ascend
        for b in range(blocked.shape[0]):
            if blocked[b] <= picks[j]:
                picks[j] += 1
            else:
                break


@njit(nogil=True, cache=True)
def _sample(indptr, indices, first_node, nodes, key, hidden_dst, hidden_ptr, hidden_src, may_hide, out, places):  # type: ignore[no-untyped-def]
    """Whether all places are inside of `out`.

    Rows in small groups, and each group in three passes: where its rows lie, which positions to take, and the loads,
    which are asked for as soon as a row's positions are known. Loads that do not wait for each other overlap in the
    processor, which makes most of the speed; draws that do not, in its vectors.

    Subscripts are unsigned, because numba would check signed ones for counting from the end.
    """
    fan_out = out.shape[1]
    start_G, free_G = np.empty(GROUP, dtype=np.int64), np.empty(GROUP, dtype=np.int64)
    position_GF = np.empty((GROUP, fan_out), dtype=np.int64)
    hash_mask = may_hide.shape[0] - 1
    row_lines, lines = indptr.reshape(-1, 1), indices.reshape(-1, 1)
    for first in range(0, nodes.shape[0], GROUP):
        size = min(GROUP, nodes.shape[0] - first)
        for g in range(size):
            if first + g + STARTS_AHEAD < nodes.shape[0]:
                prefetch(row_lines, nodes[first + g + STARTS_AHEAD] - first_node, 0)
            row = np.uint64(nodes[first + g] - first_node)
            start_G[np.uint64(g)] = indptr[row]
            free_G[np.uint64(g)] = indptr[row + np.uint64(1)] - indptr[row]
        for g in range(size):
            i = np.uint64(g)
            node, start, free = nodes[np.uint64(first + g)], start_G[i], free_G[i]
            blocked = hidden_src[:0]
            if may_hide[np.uint64(node & hash_mask)]:
                row_indices = indices[start : start + free]
                blocked = _hidden_positions(node, row_indices, hidden_dst, hidden_ptr, hidden_src)
                free -= blocked.shape[0]
            free_G[i] = min(free, fan_out)
            picks = position_GF[i]
            _draw(fold(key, np.uint64(node)), free, picks)
            if blocked.shape[0] > 0:
                _pass_over(blocked, picks, free_G[i])
            for j in range(free_G[i]):
                prefetch(lines, start + picks[np.uint64(j)], 0)
        for g in range(size):
            i, o = np.uint64(g), np.uint64(places[np.uint64(first + g)])
            if o >= np.uint64(out.shape[0]):
                return False
            for j in range(free_G[i]):
                out[o, np.uint64(j)] = indices[np.uint64(start_G[i] + position_GF[i, np.uint64(j)])]
            for j in range(free_G[i], fan_out):
                out[o, np.uint64(j)] = -1
    return True


@njit(nogil=True, cache=True)
def _hidden_positions(node, row_indices, hidden_dst, hidden_ptr, hidden_src):  # type: ignore[no-untyped-def]
    """The positions in a destination's row whose sources are hidden from it, ascending."""
    at = np.searchsorted(hidden_dst, node)
    if at == hidden_dst.shape[0] or hidden_dst[at] != node:
        return np.empty(0, dtype=np.int64)
    candidates = hidden_src[hidden_ptr[at] : hidden_ptr[at + 1]]
    positions = np.searchsorted(row_indices, candidates)
    count = 0
    for j in range(candidates.shape[0]):
        if positions[j] < row_indices.shape[0] and row_indices[positions[j]] == candidates[j]:
            positions[count] = positions[j]
            count += 1
    return positions[:count]


@njit(nogil=True, cache=True)
def count_neighbors(neighbors):  # type: ignore[no-untyped-def]
    """int64 [n]: how many entries of each row of int64 [n, F] come before the first -1."""
    count = np.empty(neighbors.shape[0], dtype=np.int64)
    for i in range(neighbors.shape[0]):
        # most rows are full
        stop = neighbors.shape[1]
        while stop > 0 and neighbors[i, stop - 1] < 0:
            stop -= 1
        count[i] = stop
    return count


class Relabeller:
    """Numbers the nodes of a batch in order of first appearance, with one table for all its hops.

    The table has a number for each node ID where that takes no more memory than a hash table: open addressing with
    linear probing, at least twice as many slots as nodes. Kernels write as if every node were new, because whether
    it is would be a branch that nobody can predict: `_nodes` has one place more than there are nodes.
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
