"""The numba kernels of `attend` on the CPU: forward and backward, in tasks of destinations.

They run without the GIL and don't check that indices are inside of their arrays: `survey` does. All arrays have two
dimensions: weights are [D*F, H] with row u*F + f, and rows of heads are [D*G, I] with row u*G + g. The last arguments
are `known` numbers: H, G, and the lanes for rows and for projected rows, whose numbers divide I and O. Every thread
runs the whole kernel and takes tasks by counters in an array.

Where a matrix projects the aggregates, by O rows for each head, only the aggregates of a few destinations exist at a
time. `value` is this matrix: by columns in `forward`, [G*I, O] with row g*I + i, by rows in `backward`, [G*O, I].

Shape legend: D destinations, F fan-out, H heads, I row size, G heads of the aggregate (H or 1), O output size of a
head, X of all heads, C tasks, P parts, N edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from dist_gat.kernels.atomics import publish, take, wait_until
from dist_gat.kernels.lanes import choose, exp, fill, fma, load, store, total
from dist_gat.kernels.prefetch import prefetch_row
from dist_gat.kernels.row_steps import (
    PRODUCTS_AT_ONCE,
    STEP,
    add_products,
    add_row,
    add_weighted,
    clear_rows,
    copy_row,
    dots,
    mix_heads,
    prefetch_neighbors,
    products,
)
from dist_gat.kernels.weighting import MAX_EXPONENT, MIN_SCORE_SUM, Rule

DESTINATIONS_AHEAD, ROWS_AHEAD = 1, 8  # how far ahead rows are prefetched
GIVEN, EXP, LINEAR = Rule.GIVEN.value, Rule.EXP.value, Rule.LINEAR.value
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}


class Parts(NamedTuple):
    """What tasks of the backward pass leave for the merge, with one part for each of the P tasks under way.

    rows: [P*N, I], gradients of sources that an earlier task reached first. source: int64 [P, N], these sources.
    number: int64 [P], how many there are. query, own, value: [P*H, I], [P*H, I], [P*X, I], gradients of what all
    destinations share; they have 0 rows where nothing is shared.
    """

    rows: np.ndarray
    source: np.ndarray
    number: np.ndarray
    query: np.ndarray
    own: np.ndarray
    value: np.ndarray


@njit(**KERNEL)
def survey(neighbors, count, num_rows, num_own, per_task):  # type: ignore[no-untyped-def]
    """Whether all indices are inside of their arrays, and what `backward` must know of its tasks in advance.

    first_new: int64 [C + 1], the sources below first_new[c] are the first `num_own` or were reached by earlier tasks.
    num_repeats: int64 [C], how many edges of a task have such a source.
    """
    num_dst, fan_out = neighbors.shape
    num_tasks = -(-num_dst // per_task)
    first_new, num_repeats = np.full(num_tasks + 1, num_own), np.zeros(num_tasks, np.int64)
    lowest, highest, is_inside = 0, num_own - 1, True
    for c in range(num_tasks):
        opened, repeats = highest + 1, 0
        for u in range(c * per_task, min((c + 1) * per_task, num_dst)):
            n = count[u]
            is_inside &= 0 <= n <= fan_out
            for f in range(min(n, fan_out)):
                s = neighbors[u, f]
                lowest, highest = min(lowest, s), max(highest, s)
                repeats += s < opened
        num_repeats[c], first_new[c + 1] = repeats, highest + 1
    return is_inside and lowest >= 0 and highest < num_rows, first_new, num_repeats


@njit(**KERNEL)
def forward(  # type: ignore[no-untyped-def]
    rows, own_rows, neighbors, count, rule, slope, query, own, bias, value, scores, alpha, weight, z, out, taken,
    per_task, heads, sums, width, out_width,
):  # fmt: skip
    """Computes the weights, and the aggregates `z` or, with a `value`, their projections `out`. A `bias` with any rows
    is added to the scores.

    Several threads run it at once; `taken` counts the tasks that they have taken.
    """
    num_dst, fan_out = neighbors.shape
    num_heads, num_sums = len(heads), len(sums)
    projected = out.shape[1] > 0
    if projected:
        z = np.empty((PRODUCTS_AT_ONCE * num_sums, rows.shape[1]), rows.dtype)
    offset, own_row = np.zeros((1, num_heads), rows.dtype), np.zeros((1, 1), neighbors.dtype)
    while True:
        start = take(taken, 0) * per_task
        if start >= num_dst:
            return
        end = min(start + per_task, num_dst)
        for u in range(start, end):
            prefetch_neighbors(rows, neighbors, count, u + DESTINATIONS_AHEAD)
            first, n = u * fan_out, count[u]
            if rule != GIVEN:
                if own.shape[0]:
                    own_row[0, 0] = u
                    dots(own, 0, num_heads, own_rows, own_row, 0, 1, offset, 0, width)
                q = min(u * num_heads, query.shape[0] - num_heads)
                dots(query, q, num_heads, rows, neighbors, u, n, scores, first, width)
                if bias.shape[0]:
                    for e in range(first, first + n):
                        store(scores, e, 0, load(scores, e, 0, heads) + load(bias, e, 0, heads))
                _weigh(rule, slope, offset, scores, alpha, first, n, heads)
                for e in range(first + n, first + fan_out):
                    store(alpha, e, 0, fill(rows.dtype.type(0), heads))
            at = (u - start) % PRODUCTS_AT_ONCE
            first_sum = (at if projected else u) * num_sums
            if num_sums < num_heads:
                for e in range(first, first + n):
                    weight[e, 0] = total(load(alpha, e, 0, heads)) / rows.dtype.type(num_heads)
            clear_rows(z, first_sum, first_sum + num_sums, width)
            add_weighted(z, first_sum, num_sums, rows, neighbors, u, n, weight, first, width)
            if projected and (at == PRODUCTS_AT_ONCE - 1 or u == end - 1):
                products(out, u - at, at + 1, z, 0, value, num_sums, out_width)


@njit(**KERNEL)
def backward(  # type: ignore[no-untyped-def]
    rows, own_rows, neighbors, count, rule, slope, query, own, value, scores, alpha, weight, grad_out, grad_scores,
    grad_offset, grad_query, grad_own, grad_value, grad_rows, first_new, parts, progress, per_task, num_shares, heads,
    sums, width,
):  # fmt: skip
    """Computes all gradients whose arrays have any rows.

    Several threads run it at once. Each takes the next step: a task of destinations, which writes the gradients of the
    sources that it is the first to reach, or the merge of one share of what an earlier task left in its part. Tasks are
    merged in order, so every sum has one order for any number of threads. `progress` has the number of steps taken, the
    number of tasks merged for each share, and for each task whether it is computed.
    """
    num_tasks, num_parts = len(first_new) - 1, len(parts.number)
    lag, merged, computed = num_parts // 2, 1, 1 + num_shares
    num_sums = len(sums)
    z = np.empty((2 * PRODUCTS_AT_ONCE * num_sums, rows.shape[1]), rows.dtype)
    some_rows = np.empty((neighbors.shape[1], rows.shape[1]), rows.dtype)
    some_scores = np.empty((neighbors.shape[1], len(heads)), rows.dtype)
    own_row = np.zeros((1, 1), neighbors.dtype)
    # nothing may fail from here on: the other threads would wait forever
    while True:
        step = take(progress, 0)
        task, share = step // (num_shares + 1), step % (num_shares + 1)
        if task >= num_tasks + lag:
            return
        if share < num_shares:
            task -= lag
            if task >= 0:
                wait_until(progress, computed + task, 1)
                wait_until(progress, merged + share, task)
                _merge(
                    task, per_task, share, num_shares, len(neighbors), grad_offset, own, grad_query, grad_own,
                    grad_value, grad_rows, first_new[0], parts, heads, width,
                )  # fmt: skip
                publish(progress, merged + share, task + 1)
        elif task < num_tasks:
            # an earlier task had the same part, so that one must be merged
            for other in range(num_shares):
                wait_until(progress, merged + other, task - num_parts + 1)
            _backward_of_task(
                task, per_task, rows, own_rows, neighbors, count, rule, slope, query, value, scores, alpha, weight,
                grad_out, grad_scores, grad_offset, grad_query, grad_rows, first_new, parts, z, some_rows,
                some_scores, own_row, heads, sums, width,
            )  # fmt: skip
            publish(progress, computed + task, 1)


@njit(**KERNEL)
def _backward_of_task(  # type: ignore[no-untyped-def]
    task, per_task, rows, own_rows, neighbors, count, rule, slope, query, value, scores, alpha, weight, grad_out,
    grad_scores, grad_offset, grad_query, grad_rows, first_new, parts, z, some_rows, some_scores, own_row,
    heads, sums, width,
):  # fmt: skip
    """Computes one task; `z` is room for aggregates and their gradients, `some_scores` for gradients of scores."""
    num_dst, fan_out = neighbors.shape
    num_heads, num_sums, kind = len(heads), len(sums), rows.dtype.type
    part, has_value, has_own = task % len(parts.number), value.shape[0] > 0, parts.own.shape[0] > 0
    # first rows of the part
    first_query, first_value = part * num_heads, part * value.shape[0]
    shared = parts.query.shape[0] > 0
    if shared:
        clear_rows(parts.query, first_query, first_query + num_heads, width)
    if has_own:
        clear_rows(parts.own, first_query, first_query + num_heads, width)
    clear_rows(parts.value, first_value, first_value + value.shape[0], width)
    opened, num_open, num_repeats = first_new[task], first_new[task], 0
    start, end = task * per_task, min((task + 1) * per_task, num_dst)
    for u in range(start, end):
        prefetch_neighbors(rows, neighbors, count, u + DESTINATIONS_AHEAD)
        first, n = u * fan_out, count[u]
        grad_z, first_sum = grad_out, u * num_sums
        if has_value:
            at = (u - start) % PRODUCTS_AT_ONCE
            grad_z, first_sum = z, (PRODUCTS_AT_ONCE + at) * num_sums
            if at == 0:
                number = min(PRODUCTS_AT_ONCE, end - u)
                products(z, PRODUCTS_AT_ONCE, number, grad_out, u, value, num_sums, width)
            clear_rows(z, at * num_sums, (at + 1) * num_sums, width)
            add_weighted(z, at * num_sums, num_sums, rows, neighbors, u, n, alpha, first, width)
            if at == PRODUCTS_AT_ONCE - 1 or u == end - 1:
                add_products(parts.value, first_value, grad_out, u - at, at + 1, z, num_sums, width)
        changes, edge = some_scores, 0
        if grad_scores.shape[0]:
            changes, edge = grad_scores, first
        if rule != GIVEN or grad_scores.shape[0]:
            dots(grad_z, first_sum, num_sums, rows, neighbors, u, n, changes, edge, width)
            if num_sums < num_heads:
                for e in range(edge, edge + n):
                    store(changes, e, 0, fill(changes[e, 0] / kind(num_heads), heads))
            for e in range(edge + n, edge + fan_out):
                store(changes, e, 0, fill(kind(0), heads))
        q = min(u * num_heads, query.shape[0] - num_heads)
        if rule != GIVEN:
            _weigh_backward(rule, slope, scores, alpha, first, changes, edge, grad_offset, n, u, heads)
            if shared:
                add_weighted(parts.query, first_query, num_heads, rows, neighbors, u, n, changes, edge, width)
            else:
                clear_rows(grad_query, u * num_heads, (u + 1) * num_heads, width)
                add_weighted(grad_query, u * num_heads, num_heads, rows, neighbors, u, n, changes, edge, width)
            if has_own:
                own_row[0, 0] = u
                add_weighted(parts.own, first_query, num_heads, own_rows, own_row, 0, 1, grad_offset, u, width)
        if not grad_rows.shape[0]:
            continue
        clear_rows(some_rows, 0, n, width)
        mix_heads(some_rows, 0, n, grad_z, first_sum, num_sums, weight, first, width)
        if rule != GIVEN:
            mix_heads(some_rows, 0, n, query, q, num_heads, changes, edge, width)
        for f in range(n):
            s = neighbors[u, f]
            if s < opened:
                parts.source[part, num_repeats] = s
                copy_row(parts.rows, part * parts.source.shape[1] + num_repeats, some_rows, f, width)
                num_repeats += 1
            elif s < num_open:
                add_row(grad_rows, s, some_rows, f, width)
            else:
                # samplers number sources in order of appearance, so there are nearly always none between
                clear_rows(grad_rows, num_open, s, width)
                copy_row(grad_rows, s, some_rows, f, width)
                num_open = s + 1
    parts.number[part] = num_repeats
    if task == len(first_new) - 2:
        # rows behind the last neighbour
        clear_rows(grad_rows, num_open, grad_rows.shape[0], width)


@njit(**KERNEL)
def _merge(  # type: ignore[no-untyped-def]
    task, per_task, share, num_shares, num_dst, grad_offset, own, grad_query, grad_own, grad_value, grad_rows, num_own,
    parts, heads, width,
):  # fmt: skip
    """Adds a task's part to the gradients that tasks share, for one row in every `num_shares`."""
    num_heads, part = len(heads), task % len(parts.number)
    if grad_rows.shape[0]:
        if task == 0:
            for s in range(share, num_own, num_shares):
                clear_rows(grad_rows, s, s + 1, width)
        for k in range(parts.number[part]):
            if k + ROWS_AHEAD < parts.number[part]:
                prefetch_row(grad_rows, parts.source[part, k + ROWS_AHEAD])
            s = parts.source[part, k]
            if s % num_shares == share:
                add_row(grad_rows, s, parts.rows, part * parts.source.shape[1] + k, width)
        if own.shape[0]:
            for u in range(task * per_task, min((task + 1) * per_task, num_dst)):
                if u % num_shares == share:
                    mix_heads(grad_rows, u, 1, own, 0, num_heads, grad_offset, u, width)
    for total_rows, rows in ((grad_query, parts.query), (grad_own, parts.own), (grad_value, parts.value)):
        if rows.shape[0]:
            for row in range(share, total_rows.shape[0], num_shares):
                add_row(total_rows, row, rows, part * total_rows.shape[0] + row, width)


@njit(**STEP)
def _weigh(rule, slope, offset, scores, alpha, first, n, heads):  # type: ignore[no-untyped-def]
    """Adds the offset to the scores of one destination, in rows first to first + n - 1, and makes alpha of them."""
    kind = scores.dtype.type
    zero, one = fill(kind(0), heads), fill(kind(1), heads)
    limit, least = fill(kind(MAX_EXPONENT), heads), fill(kind(MIN_SCORE_SUM), heads)
    top, whole, shift = fill(kind(-np.inf), heads), zero, load(offset, 0, 0, heads)
    for e in range(first, first + n):
        s = load(scores, e, 0, heads) + shift
        store(scores, e, 0, s)
        if rule == EXP:
            s = s * exp(choose(s, limit, limit, s))
        elif rule != LINEAR:
            s = choose(zero, s, s * slope, s)
        store(alpha, e, 0, s)
        top = choose(s, top, s, top)
    for e in range(first, first + n):
        a = load(alpha, e, 0, heads)
        if rule != LINEAR:
            a = exp(a - top)
            store(alpha, e, 0, a)
        whole = whole + a
    factor, share = one / whole, one / kind(n)
    for e in range(first, first + n):
        a = load(alpha, e, 0, heads) * factor
        if rule == LINEAR:
            a = choose(whole, least, a, share)
        store(alpha, e, 0, a)


@njit(**STEP)
def _weigh_backward(  # type: ignore[no-untyped-def]
    rule, slope, scores, alpha, first, grad, edge, grad_offset, n, u, heads
):  # fmt: skip
    """Turns the gradients of destination u's weights into those of its scores, whose sum is the gradient of its offset.

    Its scores begin at row `first`, their gradients at row `edge`.
    """
    kind = scores.dtype.type
    zero, one = fill(kind(0), heads), fill(kind(1), heads)
    limit, least = fill(kind(MAX_EXPONENT), heads), fill(kind(MIN_SCORE_SUM), heads)
    mean, whole, summed = zero, zero, zero
    for f in range(n):
        mean = fma(load(alpha, first + f, 0, heads), load(grad, edge + f, 0, heads), mean)
        whole = whole + load(scores, first + f, 0, heads)
    for f in range(n):
        s, change = load(scores, first + f, 0, heads), load(grad, edge + f, 0, heads) - mean
        if rule == LINEAR:
            change = choose(whole, least, change / whole, zero)
        else:
            change = change * load(alpha, first + f, 0, heads)
            if rule == EXP:
                change = change * exp(choose(s, limit, limit, s)) * choose(s, limit, one, s + one)
            else:
                change = change * choose(s, zero, one, fill(slope, heads))
        store(grad, edge + f, 0, change)
        summed = summed + change
    store(grad_offset, u, 0, summed)
