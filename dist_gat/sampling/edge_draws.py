"""Sampling along edge types: neighbours with what their edges carry, as one nogil numba kernel for all of them.

`dist_gat.sampling.draws` has the draws themselves, and a faster kernel for graphs of one relation whose edges nobody
reads. Here a node has a row for each edge type that leads to its type, edges may be drawn by time or weight, and a node
may see no edge of a time or later.

Shape legend: n nodes, e edges of a part, T node types, K edge types, F fan-out of one, W of all that lead to a node, C
columns of a message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from dist_gat.base.random import fold, to_unit
from dist_gat.kernels.prefetch import prefetch
from dist_gat.sampling.draws import HiddenEdges, draw, hidden_positions, pass_over

UNIFORM, RECENT, WEIGHT = range(3)
STRATEGIES = {"uniform": UNIFORM, "recent": RECENT, "weight": WEIGHT}
GROUP = 48  # of nodes; each has many lines of the caches on their way
NO_LIMITS = np.zeros(0, np.int64)


class StoredEdges(NamedTuple):
    """The edges of a part; those of a row have the newest first, where they have times.

    indptr: int64 [R + 1] by row. indices: [e], their sources. times: int64 [e]. weights: float32 [e]. categories:
    uint16 [e]. The last three are [0] where no edge type reads them.
    """

    indptr: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    weights: np.ndarray
    categories: np.ndarray


class Slots(NamedTuple):
    """The K edge types and how each is drawn; those that lead to one node type stand side by side.

    first_nodes: int64 [T + 1], of each node type in the part. first_rows: int64 [T + 1]. first_slots: int64 [T + 1].
    By slot: numbers: int64, of the edge type. fan_outs: int64. strategies: int64. has_time, has_weight, has_category:
    bool, whether its edges have these and somebody reads them.
    """

    first_nodes: np.ndarray
    first_rows: np.ndarray
    first_slots: np.ndarray
    numbers: np.ndarray
    fan_outs: np.ndarray
    strategies: np.ndarray
    has_time: np.ndarray
    has_weight: np.ndarray
    has_category: np.ndarray


class HiddenSlots(NamedTuple):
    """The hidden edges of all slots: those of each relation behind those of the one before.

    relations: int64 [K], whose edges a slot hides. dst_starts, hash_starts: int64 [relations + 1], where those of a
    relation begin among `dst` and `may_hide`. The others: see `HiddenEdges`; `ptr` counts through all of `src`.
    """

    relations: np.ndarray
    dst_starts: np.ndarray
    hash_starts: np.ndarray
    dst: np.ndarray
    ptr: np.ndarray
    src: np.ndarray
    time: np.ndarray
    may_hide: np.ndarray


def hide_slots(several: Sequence[HiddenEdges], relations: Sequence[int]) -> HiddenSlots:
    """relations: by slot, which of the several hidden edges are its own."""
    src_starts = _starts([len(one.src) for one in several])
    # where edges have no times, nobody looks at them
    times = [one.time if len(one.time) else np.zeros(len(one.src), np.int64) for one in several]
    return HiddenSlots(
        np.array(relations, np.int64), _starts([len(one.dst) for one in several]),
        _starts([len(one.may_hide) for one in several]), np.concatenate([one.dst for one in several]),
        np.concatenate([one.ptr + start for one, start in zip(several, src_starts[:-1], strict=True)]),
        np.concatenate([one.src for one in several]), np.concatenate(times),
        np.concatenate([one.may_hide for one in several]),
    )  # fmt: skip


def _starts(counts: Sequence[int]) -> np.ndarray:
    """int64 [n + 1]"""
    return np.append(0, np.cumsum(counts)).astype(np.int64)


@njit(nogil=True, cache=True)
def draw_edges(stored, slots, hidden, keys, nodes, limits, columns, width, out, places):  # type: ignore[no-untyped-def]
    """Write what is drawn for each of the part's `nodes`, int64 [n], to the rows `places` of `out`, [m, C * W].

    keys: uint64 [K], of the draws of each slot. limits: int64 [n] or [0]; a node sees edges before its limit alone.

    The sources stand in the first W columns, those of a node without gaps in the order of its slots, and -1 behind
    them. Kind (the number of the edge type), category, weight, age and rank stand in the blocks of W columns with the
    numbers `columns`, int64 [5], where these are not 0, and 0 behind them. Weights and ages are the bits of float32.
    Rank: how many edges that the node may see are newer; the place in the row where there are no times. Age: log2 of
    1 + the seconds since the edge, counted from the newest edge that the node may see; 0 without times.

    Small groups of nodes take three passes, as in `dist_gat.sampling.draws`: find their rows, draw positions, load.
    All rows of a node go through a pass together: they stand side by side, so they share lines of the caches.
    """
    num_slots = 1
    for kind in range(slots.first_slots.shape[0] - 1):
        num_slots = max(num_slots, slots.first_slots[kind + 1] - slots.first_slots[kind])
    kind_G, row_G, filled_G = np.empty(GROUP, np.int64), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    start_GS, free_GS = np.empty((GROUP, num_slots), np.int64), np.empty((GROUP, num_slots), np.int64)
    edge_GW, rank_GW = np.empty((GROUP, width), np.int64), np.empty((GROUP, width), np.int64)
    newest_GW, slot_GW = np.empty((GROUP, width), np.int64), np.empty((GROUP, width), np.int64)
    picks, best, nothing = np.empty(width, np.int64), np.empty(width), hidden.src[:0]
    age = np.zeros(1, np.float32)
    age_bits, weight_bits = age.view(np.int32), stored.weights.view(np.int32)
    has_kind, has_category, has_weight = columns[0] > 0, columns[1] > 0, columns[2] > 0
    has_age, has_rank = columns[3] > 0, columns[4] > 0
    kind_at, category_at, weight_at = columns[0] * width, columns[1] * width, columns[2] * width
    age_at, rank_at = columns[3] * width, columns[4] * width
    indptr, indices, times = stored.indptr, stored.indices, stored.times
    row_lines, lines, time_lines = indptr.reshape(-1, 1), indices.reshape(-1, 1), times.reshape(-1, 1)
    weight_lines = stored.weights.reshape(-1, 1)
    for first in range(0, nodes.shape[0], GROUP):
        size = min(GROUP, nodes.shape[0] - first)
        for g in range(size):
            node, kind = nodes[first + g], 0
            while node >= slots.first_nodes[kind + 1]:
                kind += 1
            row = slots.first_rows[kind] + (node - slots.first_nodes[kind]) * (
                slots.first_slots[kind + 1] - slots.first_slots[kind]
            )
            kind_G[g], row_G[g] = kind, row
            prefetch(row_lines, row, 0)
        for g in range(size):
            i = np.uint64(g)
            begin, row = slots.first_slots[kind_G[i]], row_G[i]
            count = slots.first_slots[kind_G[i] + 1] - begin
            start = indptr[np.uint64(row)]
            for s in range(count):
                stop = indptr[np.uint64(row + s + 1)]
                if limits.shape[0] > 0 and slots.has_time[begin + s]:
                    start = _first_before(times, start, stop, limits[first + g])
                start_GS[i, np.uint64(s)], free_GS[i, np.uint64(s)] = start, stop - start
                start = stop
        for g in range(size):
            i = np.uint64(g)
            node, filled = nodes[np.uint64(first + g)], 0
            begin = slots.first_slots[kind_G[i]]
            for s in range(slots.first_slots[kind_G[i] + 1] - begin):
                slot, start, free = np.uint64(begin + s), start_GS[i, np.uint64(s)], free_GS[i, np.uint64(s)]
                fan_out, newest, blocked = slots.fan_outs[slot], start, nothing
                relation = hidden.relations[slot]
                hash_start = hidden.hash_starts[relation]
                if hidden.may_hide[hash_start + (node & (hidden.hash_starts[relation + 1] - hash_start - 1))]:
                    from_, to = hidden.dst_starts[relation], hidden.dst_starts[relation + 1]
                    blocked = hidden_positions(
                        node, indices[start : start + free],
                        times[start : start + free] if slots.has_time[slot] else times[:0],
                        hidden.dst[from_:to], hidden.ptr[from_ + relation : to + relation + 1], hidden.src, hidden.time,
                    )  # fmt: skip
                    free -= blocked.shape[0]
                    for position in blocked:
                        newest += position == newest - start
                count = min(free, fan_out)
                node_key, strategy = fold(keys[slot], np.uint64(node)), slots.strategies[slot]
                if strategy == WEIGHT:
                    count = _heaviest_draws(node_key, stored.weights, start, free, blocked, fan_out, picks, best)
                elif strategy == RECENT:
                    for j in range(count):
                        picks[np.uint64(j)] = j
                else:
                    draw(node_key, free, fan_out, picks)
                for j in range(count):
                    rank_GW[i, np.uint64(filled + j)] = picks[np.uint64(j)]
                if blocked.shape[0]:
                    pass_over(blocked, picks, count)
                for j in range(count):
                    at = np.uint64(filled + j)
                    edge_GW[i, at], slot_GW[i, at] = start + picks[np.uint64(j)], slot
                    newest_GW[i, at] = newest
                if has_age:
                    prefetch(time_lines, newest, 0)
                filled += count
            for j in range(filled):
                edge = edge_GW[i, np.uint64(j)]
                prefetch(lines, edge, 0)
                if has_age:
                    prefetch(time_lines, edge, 0)
                if has_weight:
                    prefetch(weight_lines, edge, 0)
            filled_G[i] = filled
        for g in range(size):
            i = np.uint64(g)
            o, filled = np.uint64(places[np.uint64(first + g)]), filled_G[i]
            for c in range(filled):
                j = np.uint64(c)
                slot, edge = np.uint64(slot_GW[i, j]), np.uint64(edge_GW[i, j])
                out[o, j] = indices[edge]
                if has_kind:
                    out[o, np.uint64(kind_at) + j] = slots.numbers[slot]
                if has_category:
                    out[o, np.uint64(category_at) + j] = stored.categories[edge] if slots.has_category[slot] else 0
                if has_weight:
                    out[o, np.uint64(weight_at) + j] = weight_bits[edge] if slots.has_weight[slot] else 0
                if has_age:
                    age[0] = 0
                    if slots.has_time[slot]:
                        seconds = max(times[np.uint64(newest_GW[i, j])] - times[edge], 0) * 1e-6
                        age[0] = math.log2(1.0 + seconds)
                    out[o, np.uint64(age_at) + j] = age_bits[0]
                if has_rank:
                    out[o, np.uint64(rank_at) + j] = rank_GW[i, j]
            for j in range(filled, width):
                out[o, np.uint64(j)] = -1
                for c in range(width + j, out.shape[1], width):
                    out[o, np.uint64(c)] = 0


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
def _heaviest_draws(key, weights, start, free, blocked, fan_out, picks, best):  # type: ignore[no-untyped-def]
    """Write positions drawn without replacement in proportion to their weights; returns how many.

    Each edge draws log(u) / weight, and the largest stay (Efraimidis, Spirakis: Information Processing Letters 2006).
    Edges of weight 0 or less are never drawn.
    """
    count, passed = 0, 0
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
