"""`prefetch`: the instruction is there, and nothing but time can tell."""

from __future__ import annotations

import numpy as np
from numba import njit

from dist_gat.kernels.prefetch import prefetch


@njit
def gather_sum(rows: np.ndarray, index: np.ndarray) -> float:
    total = 0.0
    for k in range(len(index)):
        if k + 2 < len(index):
            prefetch(rows, index[k + 2], 0)
        total += rows[index[k], 0]
    return total


def test_a_kernel_that_prefetches_computes_the_same_and_asks_for_the_line() -> None:
    rows, index = np.arange(60.0, dtype=np.float32).reshape(20, 3), np.array([3, 19, 0, 7])
    assert gather_sum(rows, index) == rows[index, 0].sum()
    (assembly,) = gather_sum.inspect_asm().values()
    assert "prefetch" in assembly or "prfm" in assembly


def test_a_line_outside_of_the_array_is_no_fault() -> None:
    @njit
    def outside(rows: np.ndarray) -> None:
        prefetch(rows, 1 << 40, 0)

    outside(np.zeros((2, 2)))
