"""The shapes that the tests compile the attention kernels for reach every branch of them."""

from __future__ import annotations

from itertools import product

import torch
from nn_cases import PALETTE, SIZE_OF, Shape

from dist_gat.kernels import lanes
from dist_gat.kernels.lanes import width_of

LINE = 64  # bytes


def pieces(size: int, dtype: torch.dtype) -> tuple[int, int]:
    """The lanes that rows of a size are handled in, in bytes, and how often they go into a row."""
    width = width_of(size, dtype.itemsize)
    return width * dtype.itemsize, size // width


def branches(shape: Shape, heads: int, is_projected: bool, is_mean: bool) -> set[tuple[str, object]]:
    """What the kernels do of what they can do, with one of a shape's compiled kernels."""
    lane_bytes, number = pieces(shape.size, shape.dtype)
    found: set[tuple[str, object]] = {
        ("numbers", shape.dtype),
        ("a row in several pieces", number > 1),
        ("blocks of four heads", heads >= 4),
        ("heads beyond the blocks", heads % 4 > 0),
        ("several heads", heads > 1),
        ("aggregates", "mean" if is_mean else "projected" if is_projected else "of each head"),
    }
    found |= {("lanes", "widest")} if lane_bytes == lanes.BYTES_AT_ONCE else set()
    found |= {("lanes", "of a line")} if lane_bytes == LINE else set()
    found |= {("lanes", "of one number")} if lane_bytes == shape.dtype.itemsize else set()
    if is_projected:
        out_bytes, number = pieces(shape.head_size, shape.dtype)
        found |= {("outputs in several pieces", number > 1), ("outputs in the lanes of rows", out_bytes == lane_bytes)}
    return found


def kernels_of(shape: Shape) -> list[tuple[int, bool, bool]]:
    """Heads, whether aggregates are projected, and whether their mean is taken."""
    return [
        (heads, is_projected, is_mean)
        for heads, is_projected, is_mean in product(shape.heads, (False, True), (False, True))
        if not (is_projected and (is_mean or not shape.head_size)) and not (is_mean and heads == 1)
    ]


def test_the_palette_reaches_every_branch() -> None:
    assert len(PALETTE) == 4
    found = set().union(*(branches(shape, *kernel) for shape in PALETTE.values() for kernel in kernels_of(shape)))
    assert found == {
        *product(["numbers"], [torch.float32, torch.float64]),
        *product(["aggregates"], ["mean", "projected", "of each head"]),
        *product(["lanes"], ["widest", "of a line", "of one number"]),
        *product(
            ["a row in several pieces", "outputs in several pieces", "outputs in the lanes of rows"], [False, True]
        ),
        *product(["blocks of four heads", "several heads"], [False, True]),
        # blocks without more heads are a case of blocks
        ("heads beyond the blocks", True),
    }


def test_runs_have_the_same_lanes_in_both_kinds_of_numbers() -> None:
    assert {pieces(size, dtype) for dtype, size in SIZE_OF.items()} == {(LINE, 1)}
