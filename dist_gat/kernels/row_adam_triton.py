"""The Triton kernel of `RowAdam`: one pass over the rows that a step touches, in float32.

Quotient and root are rounded correctly, as torch's are; the kernel waits for memory either way.

Shape legend: O rows of the table, N rows with a gradient, E row size. BN and BE are the sizes of a program's tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # numbers of a program


def update_rows_gpu(
    weight_OE: Tensor,
    mean_OE: Tensor,
    square_OE: Tensor,
    rows_N: Tensor,
    gradient_NE: Tensor,
    gain1: float,
    gain2: float,
    eps: float,
    size: float,
) -> None:
    """m += gain1 (g - m), v += gain2 (g^2 - v), w += size m / (sqrt(v) + eps) on distinct rows; all contiguous."""
    num_rows, row_size = gradient_NE.shape
    width = triton.next_power_of_2(row_size)
    height = max(TILE // width, 1)
    if not gradient_NE.numel():
        return
    # the tensors' device need not be the current one
    with torch.cuda.device_of(weight_OE):
        _update_rows[(-(-num_rows // height),)](
            weight_OE, mean_OE, square_OE, rows_N, gradient_NE, num_rows, gain1, gain2, eps, size,
            SIZE=row_size, BN=height, BE=width,
        )  # fmt: skip


@triton.jit(do_not_specialize=["num_rows"])
def _update_rows(  # type: ignore[no-untyped-def]
    weight, mean, square, rows, gradient, num_rows, gain1, gain2, eps, size,
    SIZE: tl.constexpr, BN: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    # int64, because products of it may pass 2^31
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    e = tl.arange(0, BE)
    row = tl.load(rows + n, mask=n < num_rows, other=0)
    mask = (n < num_rows)[:, None] & (e < SIZE)[None]
    at = row[:, None] * SIZE + e[None]
    g = tl.load(gradient + n[:, None] * SIZE + e[None], mask=mask, other=0.0)
    m = tl.load(mean + at, mask=mask, other=0.0)
    v = tl.load(square + at, mask=mask, other=0.0)
    w = tl.load(weight + at, mask=mask, other=0.0)
    m += (g - m) * gain1
    v += (g * g - v) * gain2
    tl.store(mean + at, m, mask=mask)
    tl.store(square + at, v, mask=mask)
    tl.store(weight + at, w + tl.div_rn(m, tl.sqrt_rn(v) + eps) * size, mask=mask)
