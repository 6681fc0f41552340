"""The Triton kernels of `attend_gpu`.

A program takes one destination, or one source, and goes through its neighbours, or its edges, in tiles [R, H, I]. A
neighbourhood that fits one tile, as those of a sample do, is read from memory once and stays in registers.

All arithmetic is float32, whatever the inputs are. Products are multiplied and added, not given to tensor cores: with
the few heads of a layer these would work on padding mostly, and round float32 to TensorFloat32; and the kernels wait
for memory, not for arithmetic. The lanes of a warp lie along rows, four numbers each, so that a gather reads whole
128-byte lines; sums over a row are then shuffles, and sums over neighbours are additions within a lane.

Shape legend: D destinations, F fan-out, H heads, I row size, R neighbours or edges of a tile, G heads of the
aggregate (H or 1). BR, BH, BI and BG are the sizes of tiles: R, and the next powers of two of the others. All
arrays are contiguous, with the shapes that `attend_gpu` gives them; what does not exist for a layer is None.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dist_gat.kernels.weighting import MAX_EXPONENT, MIN_SCORE_SUM, Rule

# Triton lets kernels read globals of this type alone.
GIVEN, EXP, LINEAR = tl.constexpr(Rule.GIVEN.value), tl.constexpr(Rule.EXP.value), tl.constexpr(Rule.LINEAR.value)
LIMIT, LEAST_SUM = tl.constexpr(MAX_EXPONENT), tl.constexpr(MIN_SCORE_SUM)
# Full windows of one source's edges are summed beforehand, so that no program walks through all edges of a hub.
WINDOW = tl.constexpr(64)
# These change with every block: do not compile anew because one of them happens to be a multiple of 16.
jit = triton.jit(do_not_specialize=["num_rows", "num_dst", "fan_out"])


@jit
def forward(  # type: ignore[no-untyped-def]
    rows, neighbors, count, query, own, bias, scores, alpha, z, num_rows, fan_out, slope,
    RULE: tl.constexpr, SHARED: tl.constexpr, HEADS: tl.constexpr, SUMS: tl.constexpr, SIZE: tl.constexpr,
    BR: tl.constexpr, BH: tl.constexpr, BG: tl.constexpr, BI: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # int64, because products of it may pass 2^31
    u = tl.program_id(0).to(tl.int64)
    n = tl.minimum(tl.load(count + u), fan_out)
    r = tl.arange(0, BR)
    if not WIDE:
        near = _gather(rows, neighbors, u, 0, n, num_rows, fan_out, SIZE, BR, BI)
    if RULE != GIVEN:
        q = _load_heads(query, 0 if SHARED else u, HEADS, SIZE, BH, BI)
        offset = tl.zeros([BH], tl.float32)
        if own is not None:
            offset += tl.sum(_load_heads(own, 0, HEADS, SIZE, BH, BI) * _load_heads(rows, u, 1, SIZE, 1, BI), axis=1)
        s = tl.zeros([BR, BH], tl.float32)
        top = tl.full([BH], -float("inf"), tl.float32)
        total = tl.zeros([BH], tl.float32)
        for first in range(0, n, BR):
            if WIDE:
                near = _gather(rows, neighbors, u, first, n, num_rows, fan_out, SIZE, BR, BI)
            edges, mask = _edges(u, first, n, fan_out, HEADS, BR, BH)
            s = _scores(near, q, offset, bias, edges, mask)
            tl.store(scores + edges, s, mask=mask)
            live = (first + r < n)[:, None]
            if RULE == LINEAR:
                total += tl.sum(tl.where(live, s, 0.0), axis=0)
            else:
                logits = tl.where(live, _logits(s, slope, RULE), -float("inf"))
                new_top = tl.maximum(top, tl.max(logits, axis=0))
                total = total * tl.exp(top - new_top) + tl.sum(tl.exp(logits - new_top[None]), axis=0)
                top = new_top
    sums = tl.zeros([BG, BI], tl.float32)
    for first in range(0, n, BR):
        edges, mask = _edges(u, first, n, fan_out, HEADS, BR, BH)
        if WIDE:
            near = _gather(rows, neighbors, u, first, n, num_rows, fan_out, SIZE, BR, BI)
        if RULE == GIVEN:
            a = tl.load(alpha + edges, mask=mask, other=0.0).to(tl.float32)
        else:
            if WIDE:
                # computed again, not read: threads of a program do not see each other's stores without a barrier
                s = _scores(near, q, offset, bias, edges, mask)
            if RULE == LINEAR:
                a = tl.where((total > LEAST_SUM)[None], s / tl.where(total > LEAST_SUM, total, 1.0)[None], 1.0 / n)
            else:
                a = tl.exp(_logits(s, slope, RULE) - top[None]) / total[None]
            a = tl.where(mask, a, 0.0)
            tl.store(alpha + edges, a, mask=mask)
        if SUMS < HEADS:
            a = tl.sum(a, axis=1, keep_dims=True) / HEADS
        sums += tl.sum(a[:, :, None] * near, axis=0)
    _store_heads(z, u, sums, SUMS, SIZE, BG, BI)


@jit
def backward(  # type: ignore[no-untyped-def]
    rows, neighbors, count, grad_z, scores, alpha, grad_scores, grad_offset, grad_query, grad_own, num_rows, num_dst,
    fan_out, slope, EACH: tl.constexpr,
    RULE: tl.constexpr, SHARED: tl.constexpr, HEADS: tl.constexpr, SUMS: tl.constexpr, SIZE: tl.constexpr,
    BR: tl.constexpr, BH: tl.constexpr, BG: tl.constexpr, BI: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of the scores (of the weights, if those are given), and with them of query and own."""
    program = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BH)
    query_sums = tl.zeros([BH, BI], tl.float32)
    own_sums = tl.zeros([BH, BI], tl.float32)
    for u in range(program * EACH, tl.minimum((program + 1) * EACH, num_dst)):
        n = tl.minimum(tl.load(count + u), fan_out)
        up = _load_heads(grad_z, u, SUMS, SIZE, BG, BI)
        if not WIDE:
            near = _gather(rows, neighbors, u, 0, n, num_rows, fan_out, SIZE, BR, BI)
        change = tl.zeros([BR, BH], tl.float32)
        mean = tl.zeros([BH], tl.float32)
        weight = tl.zeros([BH], tl.float32)
        total = tl.zeros([BH], tl.float32)
        for first in range(0, n, BR):
            if WIDE:
                near = _gather(rows, neighbors, u, first, n, num_rows, fan_out, SIZE, BR, BI)
            change = _weight_gradients(near, up, HEADS, SUMS, BR, BH)
            edges, mask = _edges(u, first, n, fan_out, HEADS, BR, BH)
            if RULE == GIVEN:
                tl.store(grad_scores + edges, change, mask=mask)
            else:
                a = tl.load(alpha + edges, mask=mask, other=0.0)
                mean += tl.sum(a * change, axis=0)
                weight += tl.sum(a, axis=0)
                if RULE == LINEAR:
                    total += tl.sum(tl.load(scores + edges, mask=mask, other=0.0), axis=0)
        if RULE != GIVEN:
            # The weights add up to 1 only up to rounding, which for s exp(s) with fused multiply-adds is 1e-5 and more.
            # Without this division the mean would be off by as much, times the slope of s exp(s).
            mean /= tl.where(weight != 0, weight, 1.0)
            offset = tl.zeros([BH], tl.float32)
            for first in range(0, n, BR):
                if WIDE:
                    near = _gather(rows, neighbors, u, first, n, num_rows, fan_out, SIZE, BR, BI)
                    change = _weight_gradients(near, up, HEADS, SUMS, BR, BH)
                edges, mask = _edges(u, first, n, fan_out, HEADS, BR, BH)
                d = change - mean[None]
                if RULE == LINEAR:
                    d = tl.where((total > LEAST_SUM)[None], d / tl.where(total > LEAST_SUM, total, 1.0)[None], 0.0)
                else:
                    s = tl.load(scores + edges, mask=mask, other=0.0)
                    d *= tl.load(alpha + edges, mask=mask, other=0.0) * _logit_slopes(s, slope, RULE)
                d = tl.where(mask, d, 0.0)
                tl.store(grad_scores + edges, d, mask=mask)
                offset += tl.sum(d, axis=0)
                query_sums += tl.sum(d[:, :, None] * near, axis=0)
            if not SHARED:
                _store_heads(grad_query, u, query_sums, HEADS, SIZE, BH, BI)
                query_sums = tl.zeros([BH, BI], tl.float32)
            if grad_own is not None:
                tl.store(grad_offset + u * HEADS + h, offset, mask=h < HEADS)
                own_sums += offset[:, None] * _load_heads(rows, u, 1, SIZE, 1, BI)
    if SHARED:
        _store_heads(grad_query, program, query_sums, HEADS, SIZE, BH, BI)
    if grad_own is not None:
        _store_heads(grad_own, program, own_sums, HEADS, SIZE, BH, BI)


@jit
def sum_windows(  # type: ignore[no-untyped-def]
    sums, source, num_rows, edge, query, alpha, grad_z, grad_scores, fan_out,
    RULE: tl.constexpr, SHARED: tl.constexpr, HEADS: tl.constexpr, SUMS: tl.constexpr, SIZE: tl.constexpr,
    BR: tl.constexpr, BH: tl.constexpr, BG: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """The gradient that WINDOW edges send to their source, where they all share one source."""
    window = tl.program_id(0).to(tl.int64)
    first = window * WINDOW
    owner = tl.load(source + first)
    # sorted, so the first and the last tell; padding has the source `num_rows`
    if (owner == tl.load(source + first + WINDOW - 1)) & (owner < num_rows):
        row = _sum_edges(
            first, first + WINDOW, first, 0, edge, query, alpha, grad_z, grad_scores, fan_out,
            RULE, SHARED, HEADS, SUMS, SIZE, BR, BH, BG, BI,
        )  # fmt: skip
        _store_heads(sums, window, row[None], 1, SIZE, 1, BI)


@jit
def sum_sources(  # type: ignore[no-untyped-def]
    grad_rows, start, sums, own, grad_offset, num_dst, edge, query, alpha, grad_z, grad_scores, fan_out,
    RULE: tl.constexpr, SHARED: tl.constexpr, HEADS: tl.constexpr, SUMS: tl.constexpr, SIZE: tl.constexpr,
    BR: tl.constexpr, BH: tl.constexpr, BG: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """Gradient of a source's row: the sum of its full windows, of its edges outside of these, and of its own score."""
    s = tl.program_id(0).to(tl.int64)
    first, last = tl.load(start + s), tl.load(start + s + 1)
    window = (first + WINDOW - 1) // WINDOW
    num_windows = tl.maximum(last // WINDOW - window, 0)
    row = _sum_edges(
        first, last - num_windows * WINDOW, window * WINDOW, num_windows * WINDOW,
        edge, query, alpha, grad_z, grad_scores, fan_out, RULE, SHARED, HEADS, SUMS, SIZE, BR, BH, BG, BI,
    )  # fmt: skip
    w, i = window + tl.arange(0, BR)[:, None], tl.arange(0, BI)[None]
    for done in range(0, num_windows, BR):
        mask = (done + tl.arange(0, BR) < num_windows)[:, None] & (i < SIZE)
        row += tl.sum(tl.load(sums + (done + w) * SIZE + i, mask=mask, other=0.0), axis=0)
    if grad_offset is not None:  # noqa: SIM102  one is a constant of the kernel, the other a value
        if s < num_dst:
            h = tl.arange(0, BH)
            offset = tl.load(grad_offset + s * HEADS + h, mask=h < HEADS, other=0.0)
            row += tl.sum(offset[:, None] * _load_heads(own, 0, HEADS, SIZE, BH, BI), axis=0)
    _store_heads(grad_rows, s, row[None], 1, SIZE, 1, BI)


@jit
def _sum_edges(  # type: ignore[no-untyped-def]
    first, last, gap, gap_size, edge, query, alpha, grad_z, grad_scores, fan_out,
    RULE: tl.constexpr, SHARED: tl.constexpr, HEADS: tl.constexpr, SUMS: tl.constexpr, SIZE: tl.constexpr,
    BR: tl.constexpr, BH: tl.constexpr, BG: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """[I]: what `last - first` sorted edges of one source send to its row; `gap_size` edges at `gap` are skipped."""
    r, h, i = tl.arange(0, BR), tl.arange(0, BH), tl.arange(0, BI)
    row = tl.zeros([BI], tl.float32)
    shares = tl.zeros([BH], tl.float32)
    for position in range(first, last, BR):
        live = position + r < last
        e = tl.load(edge + position + r + tl.where(position + r < gap, 0, gap_size), mask=live, other=0)
        u = (e // fan_out)[:, None, None]
        edges, mask = e[:, None] * HEADS + h[None], live[:, None] & (h < HEADS)[None]
        a = tl.load(alpha + edges, mask=mask, other=0.0).to(tl.float32)
        if SUMS < HEADS:
            a = tl.sum(a, axis=1, keep_dims=True) / HEADS
        g = tl.arange(0, BG)[None, :, None]
        wide = live[:, None, None] & (i < SIZE)[None, None]
        up = tl.load(grad_z + (u * SUMS + g) * SIZE + i[None, None], mask=wide & (g < SUMS), other=0.0)
        row += tl.sum(tl.sum(a[:, :, None] * up.to(tl.float32), axis=1), axis=0)
        if RULE != GIVEN:
            d = tl.load(grad_scores + edges, mask=mask, other=0.0)
            if SHARED:
                shares += tl.sum(d, axis=0)
            else:
                k = h[None, :, None]
                q = tl.load(query + (u * HEADS + k) * SIZE + i[None, None], mask=wide & (k < HEADS), other=0.0)
                row += tl.sum(tl.sum(d[:, :, None] * q.to(tl.float32), axis=1), axis=0)
    if SHARED:
        row += tl.sum(shares[:, None] * _load_heads(query, 0, HEADS, SIZE, BH, BI), axis=0)
    return row


@jit
def _gather(rows, neighbors, u, first, n, num_rows, fan_out, SIZE: tl.constexpr, BR: tl.constexpr, BI: tl.constexpr):  # type: ignore[no-untyped-def]
    """near[r, 0, i]: the rows of neighbours first, first + 1, ... of destination u, 0 from the n-th on."""
    r, i = first + tl.arange(0, BR), tl.arange(0, BI)[None, None]
    s = tl.load(neighbors + u * fan_out + r, mask=r < n, other=0)[:, None, None]
    inside = (s >= 0) & (s < num_rows)
    near = tl.load(rows + s * SIZE + i, mask=(r < n)[:, None, None] & inside & (i < SIZE), other=0.0)
    return tl.where(inside, near.to(tl.float32), float("nan"))


@jit
def _edges(u, first, n, fan_out, HEADS: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Offsets in [D, F, H] of the numbers of a tile [R, H], and which of them exist."""
    r, h = first + tl.arange(0, BR), tl.arange(0, BH)
    return (u * fan_out + r)[:, None] * HEADS + h[None], (r < n)[:, None] & (h < HEADS)[None]


@jit
def _scores(near, q, offset, bias, edges, mask):  # type: ignore[no-untyped-def]
    """The scores [R, H] of a tile; `bias` has one number for each of `edges`, or is None."""
    s = tl.sum(near * q[None], axis=2) + offset[None]
    if bias is not None:
        s += tl.load(bias + edges, mask=mask, other=0.0).to(tl.float32)
    return s


@jit
def _load_heads(pointer, row, HEADS: tl.constexpr, SIZE: tl.constexpr, BH: tl.constexpr, BI: tl.constexpr):  # type: ignore[no-untyped-def]
    """pointer[row], which is [HEADS, SIZE], as a tile [H, I] of float32."""
    h, i = tl.arange(0, BH)[:, None], tl.arange(0, BI)[None]
    mask = (h < HEADS) & (i < SIZE)
    return tl.load(pointer + (row * HEADS + h) * SIZE + i, mask=mask, other=0.0).to(tl.float32)


@jit
def _store_heads(pointer, row, tile, HEADS: tl.constexpr, SIZE: tl.constexpr, BH: tl.constexpr, BI: tl.constexpr):  # type: ignore[no-untyped-def]
    """pointer[row] = tile, rounded to the type there."""
    h, i = tl.arange(0, BH)[:, None], tl.arange(0, BI)[None]
    mask = (h < HEADS) & (i < SIZE)
    tl.store(pointer + (row * HEADS + h) * SIZE + i, tile.to(pointer.dtype.element_ty), mask=mask)


@jit
def _weight_gradients(near, up, HEADS: tl.constexpr, SUMS: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradients [R, H] of the weights, from the upstream gradient [G, I]."""
    change = tl.sum(near * up[None], axis=2)
    return tl.broadcast_to(change / HEADS if SUMS < HEADS else change, [BR, BH])


@jit
def _logits(s, slope, RULE: tl.constexpr):  # type: ignore[no-untyped-def]
    return s * tl.exp(tl.minimum(s, LIMIT)) if RULE == EXP else tl.where(s < 0, s * slope, s)


@jit
def _logit_slopes(s, slope, RULE: tl.constexpr):  # type: ignore[no-untyped-def]
    if RULE == EXP:
        return tl.exp(tl.minimum(s, LIMIT)) * tl.where(s <= LIMIT, 1.0 + s, 1.0)
    else:
        return tl.where(s > 0, 1.0, slope)
