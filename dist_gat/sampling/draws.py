"""Uniform neighbour sampling without replacement, and relabelling, as nogil numba kernels.

The sample of a destination is a pure function of (key, node): Floyd's algorithm (Bentley, Floyd: A Sample
of Brilliance, CACM 1987) over the positions of its row, each draw a hash of the key, the node and the
draw's number. Hidden edges are taken out of the row first, so the sample stays uniform over the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from dist_gat.base.pairs import order_of_pairs, sort_pairs
from dist_gat.base.random import fold, to_unit
from dist_gat.kernels.prefetch import prefetch

GROUP = 128
STARTS_AHEAD = 16  # nodes ahead whose row starts are prefetched
NO_TIMES = np.zeros(0, np.int64)


@dataclass(frozen=True)
class HiddenEdges:
    """Edges that no message may use in this step: for each destination, its hidden sources.

    dst: int64 [h], distinct and ascending; src[ptr[j]:ptr[j + 1]] are the hidden sources of dst[j], ascending, and time
    has when these edges were, where rows are ordered by time; else it is empty.
    may_hide: bool [power of two], false where no hidden destination has these lowest bits of the ID.
    """

    dst: np.ndarray
    ptr: np.ndarray
    src: np.ndarray
    time: np.ndarray
    may_hide: np.ndarray


def hide_pairs(pairs: np.ndarray, times: np.ndarray | None = None) -> HiddenEdges:
    """Hide int64 [m, 2] node pairs in both directions. times: int64 [m], where the edges have any."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    if times is None:
        dst, src = sort_pairs(both[:, 0], both[:, 1])
        time = np.zeros(0, np.int64)
    else:
        order = order_of_pairs(both[:, 0], both[:, 1])
        dst, src, time = both[order, 0], both[order, 1], np.concatenate([times, times])[order]
    # an edge counts once, however often it is given
    is_new = np.append(True, (dst[1:] != dst[:-1]) | (src[1:] != src[:-1]))[: len(dst)]
    dst, src = dst[is_new], src[is_new]
    if times is not None:
        time = time[is_new]
    distinct, first = np.unique(dst, return_index=True)
    may_hide = np.zeros(1 << int(8 * len(distinct)).bit_length(), dtype=np.bool_)
    may_hide[distinct & (len(may_hide) - 1)] = True
    ptr = np.append(first, len(dst)).astype(np.int64)
    return HiddenEdges(distinct, ptr, src, time, may_hide)


def sample_rows(
    indptr: np.ndarray,
    indices: np.ndarray,
    first_node: int,
    nodes: np.ndarray,
    fan_out: int,
    key: np.uint64,
    hidden: HiddenEdges,
    times: np.ndarray = NO_TIMES,
) -> np.ndarray:
    """Sample up to `fan_out` in-neighbours of each of `nodes`, all of which belong to one part.

    Returns int64 [n, fan_out] source node IDs, -1 behind the last one of a row.
    """
    out = np.empty((len(nodes), fan_out), dtype=np.int64)
    sample_into(out, np.arange(len(nodes)), indptr, indices, first_node, nodes, key, hidden, times)
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
    times: np.ndarray = NO_TIMES,
) -> None:
    """`sample_rows`, written to the rows `places`, int64 [n], of `out`, [m, fan_out], whose type holds node IDs.

    times: int64 [e], of the edges, where rows are ordered by them.
    """
    assert len(nodes) == len(places), "as many places as nodes"
    assert len(hidden.time) in (0, len(hidden.src)), "a time a hidden edge"
    assert len(times) in (0, len(indices)), "a time an edge"
    is_inside = _sample(
        indptr, indices, times if len(hidden.time) else NO_TIMES, first_node, nodes, key, hidden.dst, hidden.ptr,
        hidden.src, hidden.time, hidden.may_hide, out, places,
    )  # fmt: skip
    assert is_inside, "places outside of the array"


@njit(nogil=True, cache=True, inline="always")
def draw(key, free, fan_out, picks):  # type: ignore[no-untyped-def]
    """Write min(free, fan_out) distinct positions below `free` to the beginning of `picks`."""
    if free <= fan_out:
        for j in range(free):
            picks[np.uint64(j)] = j
        return
    for j in range(fan_out):
        picks[np.uint64(j)] = np.int64(to_unit(fold(key, np.uint64(j))) * (free - fan_out + j + 1))
    for j in range(1, fan_out):
        pick = picks[np.uint64(j)]
        # a number, because the compiler makes no vectors of booleans; no branch, because it would be unpredictable
        is_taken = np.int64(0)
        for c in range(j):
            is_taken |= np.int64(picks[np.uint64(c)] == pick)
        picks[np.uint64(j)] = free - fan_out + j if is_taken else pick


@njit(nogil=True, cache=True)
def pass_over(blocked, picks, count):  # type: ignore[no-untyped-def]
    """Turn the first `count` of `picks` from positions among those not blocked into positions among all."""
    for j in range(count):
        # blocked positions ascend
        for b in range(blocked.shape[0]):
            if blocked[b] <= picks[j]:
                picks[j] += 1
            else:
                break


@njit(nogil=True, cache=True)
def _sample(  # type: ignore[no-untyped-def]
    indptr, indices, times, first_node, nodes, key, hidden_dst, hidden_ptr, hidden_src, hidden_time, may_hide, out,
    places,
):  # fmt: skip
    """Whether all places are inside of `out`.

    Each small group of rows takes three passes: find where the rows lie, draw positions, load. Loads are prefetched as
    soon as their positions are known. Independent loads overlap in the processor, which makes most of the speed, and
    independent draws fill its vectors.

    Subscripts are unsigned, because numba would check signed ones for negative values.
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
                row_indices, row_times = indices[start : start + free], times[:0]
                if times.shape[0]:
                    row_times = times[start : start + free]
                blocked = hidden_positions(
                    node, row_indices, row_times, hidden_dst, hidden_ptr, hidden_src, hidden_time
                )
                free -= blocked.shape[0]
            free_G[i] = min(free, fan_out)
            picks = position_GF[i]
            draw(fold(key, np.uint64(node)), free, fan_out, picks)
            if blocked.shape[0] > 0:
                pass_over(blocked, picks, free_G[i])
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
def hidden_positions(node, row_indices, row_times, hidden_dst, hidden_ptr, hidden_src, hidden_time):  # type: ignore[no-untyped-def]
    """The positions in a destination's row whose sources are hidden from it, ascending.

    The row has ascending sources; or, with times, the newest edge first and ascending sources at the same time.
    """
    at = np.searchsorted(hidden_dst, node)
    if at == hidden_dst.shape[0] or hidden_dst[at] != node:
        return np.empty(0, dtype=np.int64)
    size = row_indices.shape[0]
    first, last = hidden_ptr[at], hidden_ptr[at + 1]
    positions, count = np.empty(last - first, np.int64), 0
    for c in range(first, last):
        low, high = 0, size
        while low < high:
            middle = (low + high) // 2
            is_before = row_indices[middle] < hidden_src[c]
            if row_times.shape[0] and row_times[middle] != hidden_time[c]:
                is_before = row_times[middle] > hidden_time[c]
            if is_before:
                low = middle + 1
            else:
                high = middle
        if low < size and row_indices[low] == hidden_src[c]:
            # few, and in order of time they come in any order
            place = count
            while place > 0 and positions[place - 1] > low:
                positions[place] = positions[place - 1]
                place -= 1
            positions[place] = low
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
