"""The numba kernels of `EdgeTerms` on the CPU: one pass over the edges that adds up rows of a table.

A term reads one row of the table, or two neighbouring ones with shares, where it is a curve. Columns that no term reads
are empty. `heads` is a `known` number: a row of the table is as many lanes. Subscripts are unsigned, because numba
would check signed ones for negative values.

Shape legend: e edges, R rows of the table, H heads, K edge types, C tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from dist_gat.kernels.lanes import fill, fma, load, store

CURVES = ("weight", "age", "rank")
WEIGHT, AGE, RANK = (np.uint64(curve) for curve in range(3))
# log2(1 + rank), beyond which the curve is flat
LOG_RANKS = np.log2(1.0 + np.arange(1 << 16)).astype(np.float32)
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}


class EdgeColumns(NamedTuple):
    """What edges carry: int64 or float32 (weight, age) [e], or [0] where no term reads it."""

    kind: np.ndarray
    category: np.ndarray
    weight: np.ndarray
    age: np.ndarray
    rank: np.ndarray


class TablePlaces(NamedTuple):
    """Where terms read the table, by edge type; -1 where they don't.

    relation, category: int64 [K], the row, and that of the first category. curve: int64 [3, K], the first row of each
    of `CURVES`, on which a value x is at (x - mean) * scale + offset, from 0 to last. mean, scale: float32 [3, K].
    offset, last: float32 [3].
    """

    relation: np.ndarray
    category: np.ndarray
    curve: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    last: np.ndarray


@njit(**KERNEL, inline="always")
def read_curve(curve, e, k, weight, age, rank, logs, row, mean, scale, offset, last):  # type: ignore[no-untyped-def]
    """The first of the two rows of the table that an edge reads of a curve, and the share of the second."""
    if curve == WEIGHT:
        value = weight[e]
    elif curve == AGE:
        value = age[e]
    else:
        value = logs[np.uint64(min(max(rank[e], 0), logs.shape[0] - 1))]
    at = (value - mean[curve, k]) * scale[curve, k] + offset[curve]
    # what is no number is at the beginning
    at = at if at > np.float32(0) else np.float32(0)
    at = at if at < last[curve] else last[curve]
    below = min(np.int64(at), np.int64(last[curve]) - 1)
    return row[curve, k] + below, at - np.float32(below)


@njit(**KERNEL)
def add_terms(columns, places, logs, table, out, start, stop, heads):  # type: ignore[no-untyped-def]
    """out[e] = the sum of the terms of the edges from `start` to `stop` - 1; out: [e, H]."""
    # arrays as variables of their own, because a field would be counted as one more reference at every use
    kind, category, weight, age, rank = columns
    relation, first_category, curve_row, mean, scale, offset, last = places
    has_kind, number = kind.shape[0] > 0, table.dtype.type
    for e in range(np.uint64(start), np.uint64(stop)):
        k = np.uint64(kind[e]) if has_kind else np.uint64(0)
        total = fill(number(0), heads)
        if relation[k] >= 0:
            total = total + load(table, relation[k], 0, heads)
        if first_category[k] >= 0:
            total = total + load(table, first_category[k] + category[e], 0, heads)
        for curve in range(WEIGHT, RANK + np.uint64(1)):
            if curve_row[curve, k] >= 0:
                row, share = read_curve(
                    curve, e, k, weight, age, rank, logs, curve_row, mean, scale, offset, last
                )  # fmt: skip
                below = load(table, row, 0, heads)
                total = fma(load(table, row + 1, 0, heads) - below, number(share), total + below)
        store(out, e, 0, total)


@njit(**KERNEL)
def add_gradients(columns, places, logs, gradient, sums, start, stop, heads):  # type: ignore[no-untyped-def]
    """Add the gradient of the table's rows, of the edges from `start` to `stop` - 1, to `sums`, [R, H]."""
    kind, category, weight, age, rank = columns
    relation, first_category, curve_row, mean, scale, offset, last = places
    has_kind, number = kind.shape[0] > 0, sums.dtype.type
    for e in range(np.uint64(start), np.uint64(stop)):
        k = np.uint64(kind[e]) if has_kind else np.uint64(0)
        change = load(gradient, e, 0, heads)
        if relation[k] >= 0:
            store(sums, relation[k], 0, load(sums, relation[k], 0, heads) + change)
        if first_category[k] >= 0:
            row = first_category[k] + category[e]
            store(sums, row, 0, load(sums, row, 0, heads) + change)
        for curve in range(WEIGHT, RANK + np.uint64(1)):
            if curve_row[curve, k] >= 0:
                row, share = read_curve(
                    curve, e, k, weight, age, rank, logs, curve_row, mean, scale, offset, last
                )  # fmt: skip
                second = change * number(share)
                store(sums, row, 0, load(sums, row, 0, heads) + (change - second))
                store(sums, row + 1, 0, load(sums, row + 1, 0, heads) + second)


@njit(**KERNEL)
def are_inside(columns, num_categories):  # type: ignore[no-untyped-def]
    """Whether every edge type and category is one that there is. num_categories: int64 [K]."""
    kind, category = columns.kind, columns.category
    for e in range(kind.shape[0]):
        if kind[e] < 0 or kind[e] >= num_categories.shape[0]:
            return False
    for e in range(category.shape[0]):
        k = kind[e] if kind.shape[0] else 0
        if num_categories[k] > 0 and (category[e] < 0 or category[e] >= num_categories[k]):
            return False
    return True
