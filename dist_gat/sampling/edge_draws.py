"""Sampling along edge types: neighbours with what their edges carry, as nogil numba kernels.

`dist_gat.sampling.draws` has the draws themselves, and a faster kernel for graphs of one relation whose edges nobody
reads. Here a row is that of a node and an edge type, edges may be drawn by time or weight, and a node may see no edge
of a time or later.

Shape legend: n nodes, F fan-out of an edge type, W of all that lead to a node.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dist_gat.base.random import fold, to_unit
from dist_gat.kernels.prefetch import prefetch
from dist_gat.sampling.draws import GROUP, STARTS_AHEAD, HiddenEdges, draw, hidden_positions, pass_over

UNIFORM, RECENT, WEIGHT = range(3)
STRATEGIES = {"uniform": UNIFORM, "recent": RECENT, "weight": WEIGHT}
NO_LIMITS = np.zeros(0, np.int64)


class DrawnEdges(NamedTuple):
    """What was drawn for n nodes along one edge type.

    sources: int64 [n, F], -1 behind the last of a row.
    edges: int64 [n, F], positions among the edges of the part.
    ranks: int32 [n, F], how many edges that the node may see are newer; the place in the row where there are no times.
    ages: float32 [n, F], log2 of 1 + the seconds since the edge, counted from the newest edge that the node may see; 0
    without times.
    weights: float32 [n, F], 0 without weights.
    """

    sources: np.ndarray
    edges: np.ndarray
    ranks: np.ndarray
    ages: np.ndarray
    weights: np.ndarray


def draw_edges(
    indptr: np.ndarray, indices: np.ndarray, times: np.ndarray, weights: np.ndarray, rows: np.ndarray,
    nodes: np.ndarray, fan_out: int, key: np.uint64, hidden: HiddenEdges, limits: np.ndarray, strategy: str,
) -> DrawnEdges:  # fmt: skip
    """Up to `fan_out` edges of each of the rows, int64 [n], which belong to `nodes`.

    times: int64 [e] or [0], where rows have the newest edge first. weights: float32 [e] or [0], which the strategy
    `weight` needs. limits: int64 [n] or [0]; a node sees edges before its limit alone.
    """
    found = DrawnEdges(
        np.full((len(rows), fan_out), -1, np.int64), np.zeros((len(rows), fan_out), np.int64),
        np.zeros((len(rows), fan_out), np.int32), np.zeros((len(rows), fan_out), np.float32),
        np.zeros((len(rows), fan_out), np.float32),
    )  # fmt: skip
    _draw_edges(
        indptr, indices, times, weights, rows, nodes, key, hidden.dst, hidden.ptr, hidden.src, hidden.time,
        hidden.may_hide, limits, STRATEGIES[strategy], *found,
    )  # fmt: skip
    return found


@njit(nogil=True, cache=True)
def _draw_edges(  # type: ignore[no-untyped-def]
    indptr, indices, times, weights, rows, nodes, key, hidden_dst, hidden_ptr, hidden_src, hidden_time, may_hide,
    limits, strategy, sources, edges, ranks, ages, edge_weights,
):  # fmt: skip
    """Each small group of rows takes three passes, as in `dist_gat.sampling.draws`: find them, draw positions, load."""
    fan_out = sources.shape[1]
    start_G, free_G, newest_G = np.empty(GROUP, np.int64), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    picks, best, nothing = np.empty(fan_out, np.int64), np.empty(fan_out), hidden_src[:0]
    has_times, has_weights, has_limits = times.shape[0] > 0, weights.shape[0] > 0, limits.shape[0] > 0
    hash_mask, weight_lines = may_hide.shape[0] - 1, weights.reshape(-1, 1)
    row_lines, lines, time_lines = indptr.reshape(-1, 1), indices.reshape(-1, 1), times.reshape(-1, 1)
    for first in range(0, rows.shape[0], GROUP):
        size = min(GROUP, rows.shape[0] - first)
        for g in range(size):
            if first + g + STARTS_AHEAD < rows.shape[0]:
                prefetch(row_lines, rows[first + g + STARTS_AHEAD], 0)
            row = rows[first + g]
            start, stop = indptr[row], indptr[row + 1]
            if has_limits and has_times:
                start = _first_before(times, start, stop, limits[first + g])
            start_G[g], free_G[g] = start, stop - start
        for g in range(size):
            i, start, free = first + g, start_G[g], free_G[g]
            node, newest, blocked = nodes[i], start, nothing
            if may_hide[node & hash_mask]:
                row_times = times[start : start + free] if has_times else times
                blocked = hidden_positions(
                    node, indices[start : start + free], row_times, hidden_dst, hidden_ptr, hidden_src, hidden_time
                )
                free -= blocked.shape[0]
                for position in blocked:
                    newest += position == newest - start
            count = min(free, fan_out)
            if count > 0:
                node_key = fold(key, np.uint64(node))
                if strategy == WEIGHT:
                    count = _heaviest_draws(node_key, weights, start, free, blocked, picks, best)
                elif strategy == RECENT:
                    for j in range(count):
                        picks[j] = j
                else:
                    draw(node_key, free, picks)
            for j in range(count):
                ranks[i, j] = picks[j]
            if blocked.shape[0]:
                pass_over(blocked, picks, count)
            for j in range(count):
                edges[i, j] = start + picks[j]
                prefetch(lines, edges[i, j], 0)
                if has_times:
                    prefetch(time_lines, edges[i, j], 0)
                if has_weights:
                    prefetch(weight_lines, edges[i, j], 0)
            if has_times and count > 0:
                prefetch(time_lines, newest, 0)
            free_G[g], newest_G[g] = count, newest
        for g in range(size):
            i = first + g
            for j in range(free_G[g]):
                sources[i, j] = indices[edges[i, j]]
                if has_times:
                    ages[i, j] = math.log2(1.0 + max(times[newest_G[g]] - times[edges[i, j]], 0) * 1e-6)
                if has_weights:
                    edge_weights[i, j] = weights[edges[i, j]]


@njit(nogil=True, cache=True)
def _first_before(times, start, stop, limit):  # type: ignore[no-untyped-def]
    """The first position of a row, whose times fall, with a time before the limit."""
    while start < stop:
        middle = (start + stop) // 2
        if times[middle] >= limit:
            start = middle + 1
        else:
            stop = middle
    return start


@njit(nogil=True, cache=True)
def count_before(indptr, times, rows, limits):  # type: ignore[no-untyped-def]
    """int64 [n]: how many edges of each row, whose times fall, are before its limit."""
    found = np.empty(rows.shape[0], np.int64)
    for i in range(rows.shape[0]):
        stop = indptr[rows[i] + 1]
        found[i] = stop - _first_before(times, indptr[rows[i]], stop, limits[i])
    return found


@njit(nogil=True, cache=True)
def _heaviest_draws(key, weights, start, free, blocked, picks, best):  # type: ignore[no-untyped-def]
    """Write positions drawn without replacement in proportion to their weights; returns how many.

    Each edge draws log(u) / weight, and the largest stay (Efraimidis, Spirakis: Information Processing Letters 2006).
    Edges of weight 0 or less are never drawn.
    """
    count, passed, fan_out = 0, 0, picks.shape[0]
    for position in range(free):
        while passed < blocked.shape[0] and blocked[passed] <= position + passed:
            passed += 1
        weight = weights[start + position + passed]
        if weight <= 0:
            continue
        value = math.log(max(to_unit(fold(key, np.uint64(position + passed))), 1e-300)) / weight
        if count == fan_out and value <= best[fan_out - 1]:
            continue
        place = min(count, fan_out - 1)
        while place > 0 and best[place - 1] < value:
            best[place], picks[place] = best[place - 1], picks[place - 1]
            place -= 1
        best[place], picks[place] = value, position
        count = min(count + 1, fan_out)
    return count


@njit(nogil=True, cache=True)
def clear_edges(out, places, width):  # type: ignore[no-untyped-def]
    """Nothing drawn in the rows `places` of `out`, [m, C * W]: -1 in the first W columns, 0 in the others."""
    for o in places:
        for j in range(out.shape[1]):
            out[o, j] = -1 if j < width else 0


@njit(nogil=True, cache=True)
def put_edges(  # type: ignore[no-untyped-def]
    out, places, width, first, blocks, number, sources, edges, ranks, ages, weights, categories
):  # fmt: skip
    """Write what was drawn along edge type `number` to the rows `places` of `out`, [m, C * W], from column `first` on.

    The sources stand in the first W columns. Kind, category, weight, age and rank stand in those of the given blocks,
    int64 [5], where these are not 0; weights and ages as the bits of float32. categories: of all edges.
    """
    starts = blocks * width + first
    kind, category, weight, age, rank = starts[0], starts[1], starts[2], starts[3], starts[4]
    has_kind, has_category, has_weight = blocks[0] > 0, blocks[1] > 0, blocks[2] > 0
    has_age, has_rank = blocks[3] > 0, blocks[4] > 0
    age_bits, weight_bits = ages.view(np.int32), weights.view(np.int32)
    for i in range(places.shape[0]):
        o, count = places[i], 0
        while count < sources.shape[1] and sources[i, count] >= 0:
            out[o, first + count] = sources[i, count]
            count += 1
        if has_kind:
            for j in range(count):
                out[o, kind + j] = number
        if has_category:
            for j in range(count):
                out[o, category + j] = categories[edges[i, j]]
        if has_weight:
            for j in range(count):
                out[o, weight + j] = weight_bits[i, j]
        if has_age:
            for j in range(count):
                out[o, age + j] = age_bits[i, j]
        if has_rank:
            for j in range(count):
                out[o, rank + j] = ranks[i, j]


@njit(nogil=True, cache=True)
def close_ranks(out, width):  # type: ignore[no-untyped-def]
    """Move what is drawn to the front of every row of `out`, [n, C * W], whose first W columns have -1 for nothing."""
    num_columns = out.shape[1] // width
    for i in range(out.shape[0]):
        filled = 0
        for j in range(width):
            if out[i, j] >= 0:
                if filled < j:
                    for c in range(num_columns):
                        out[i, c * width + filled] = out[i, c * width + j]
                    out[i, j] = -1
                filled += 1
