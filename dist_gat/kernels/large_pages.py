"""`large_zeros`: arrays in large pages of memory, where the system has them.

A training step touches rows all over tables of hundreds of megabytes; with pages of 4 KiB, most of these accesses also
cost a walk through the page tables.
"""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import numpy as np

LEAST_BYTES = 1 << 22


def large_zeros(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Zeros. Below 4 MiB, and on systems other than Linux, `numpy.zeros`.

    numpy asks for large pages too, but memory that the C library reuses is in small pages already.
    """
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if num_bytes < LEAST_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # a kernel without large pages refuses the advice
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    # the array keeps the mapping alive
    return np.frombuffer(memory, dtype).reshape(shape)
