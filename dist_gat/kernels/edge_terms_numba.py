"""The numba kernels of `EdgeTerms` on the CPU: one pass over the edges that adds up rows of a table.

A term reads one row of the table, or two neighbouring ones with shares, where it is a curve. `first_rows` has the first
row of each term's own rows, or -1: relation, category, weight, age, rank. Columns that no term reads are empty.

Shape legend: e edges, R rows of the table, H heads, K edge types, C tasks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

RELATION, CATEGORY, WEIGHT, AGE, RANK = range(5)
# log2(1 + rank), beyond which the curve is flat
LOG_RANKS = np.log2(1.0 + np.arange(1 << 16)).astype(np.float32)
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**KERNEL)
def read_curve(  # type: ignore[no-untyped-def]
    term, e, k, weight, age, rank, first_rows, mean, deviation, first, step, number, logs
):  # fmt: skip
    """The first of the two rows of the table that an edge reads of the curve of a term, and the share of the second."""
    if term == WEIGHT:
        value = (weight[e] - mean[k]) / deviation[k]
    elif term == AGE:
        value = age[e]
    else:
        value = logs[min(max(rank[e], 0), logs.shape[0] - 1)]
    at = min(max((value - first[term]) / step[term], np.float32(0)), np.float32(number[term] - 1))
    below = min(int(at), number[term] - 2)
    return first_rows[term] + k * number[term] + below, at - below


@njit(**KERNEL)
def add_terms(  # type: ignore[no-untyped-def]
    kind, category, weight, age, rank, first_rows, first_category, has_category, has_time, mean, deviation, first, step,
    number, logs, table, out, start, stop,
):  # fmt: skip
    """out[e] = the sum of the terms of the edges from `start` to `stop` - 1; out: [e, H]."""
    heads = table.shape[1]
    for e in range(start, stop):
        k = kind[e] if kind.shape[0] else 0
        for h in range(heads):
            out[e, h] = 0
        if first_rows[RELATION] >= 0:
            for h in range(heads):
                out[e, h] += table[first_rows[RELATION] + k, h]
        if first_rows[CATEGORY] >= 0 and has_category[k]:
            row = first_rows[CATEGORY] + first_category[k] + category[e]
            for h in range(heads):
                out[e, h] += table[row, h]
        for term in range(WEIGHT, RANK + 1):
            if first_rows[term] >= 0 and (term == WEIGHT or has_time[k]):
                row, second = read_curve(
                    term, e, k, weight, age, rank, first_rows, mean, deviation, first, step, number, logs
                )
                share = out.dtype.type(second)
                for h in range(heads):
                    out[e, h] += table[row, h] * (1 - share) + table[row + 1, h] * share


@njit(**KERNEL)
def add_gradients(  # type: ignore[no-untyped-def]
    kind, category, weight, age, rank, first_rows, first_category, has_category, has_time, mean, deviation, first, step,
    number, logs, gradient, sums, start, stop,
):  # fmt: skip
    """Add the gradient of the table's rows, of the edges from `start` to `stop` - 1, to `sums`, [R, H]."""
    heads = sums.shape[1]
    for e in range(start, stop):
        k = kind[e] if kind.shape[0] else 0
        if first_rows[RELATION] >= 0:
            for h in range(heads):
                sums[first_rows[RELATION] + k, h] += gradient[e, h]
        if first_rows[CATEGORY] >= 0 and has_category[k]:
            row = first_rows[CATEGORY] + first_category[k] + category[e]
            for h in range(heads):
                sums[row, h] += gradient[e, h]
        for term in range(WEIGHT, RANK + 1):
            if first_rows[term] >= 0 and (term == WEIGHT or has_time[k]):
                row, second = read_curve(
                    term, e, k, weight, age, rank, first_rows, mean, deviation, first, step, number, logs
                )
                share = sums.dtype.type(second)
                for h in range(heads):
                    sums[row, h] += gradient[e, h] * (1 - share)
                    sums[row + 1, h] += gradient[e, h] * share


@njit(**KERNEL)
def are_inside(kind, category, first_category, num_categories, num_kinds):  # type: ignore[no-untyped-def]
    """Whether every edge type and category is one that there is."""
    for e in range(kind.shape[0]):
        if kind[e] < 0 or kind[e] >= num_kinds:
            return False
    for e in range(category.shape[0]):
        k = kind[e] if kind.shape[0] else 0
        if num_categories[k] > 0 and (category[e] < 0 or category[e] >= num_categories[k]):
            return False
    return True
