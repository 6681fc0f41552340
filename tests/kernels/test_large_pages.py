"""Arrays in large pages."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dist_gat.kernels import large_pages
from dist_gat.kernels.large_pages import LEAST_BYTES, large_zeros


@pytest.mark.parametrize("shape", [(0, 3), (5,), (7, 2, 3), (LEAST_BYTES // 4 + 1,), (LEAST_BYTES, 3)])
@pytest.mark.parametrize("dtype", [np.float32, "float64"])
def test_zeros_that_can_be_written(shape: tuple[int, ...], dtype: str) -> None:
    array = large_zeros(shape, dtype)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, np.dtype(dtype), True)
    assert not array.any()
    array[:] = 1
    assert array.sum() == array.size


def test_a_tensor_keeps_the_memory() -> None:
    tensor = torch.from_numpy(large_zeros((LEAST_BYTES,), np.float32))
    gc.collect()
    assert not tensor.add_(1).eq(0).any()


def test_a_kernel_that_has_no_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pages.mmap, "MADV_HUGEPAGE", 9999, raising=False)
    assert not large_zeros((LEAST_BYTES,), np.float32).any()


def test_the_system_is_asked_for_large_pages() -> None:
    maps = Path("/proc/self/smaps")
    if not maps.is_file():
        pytest.skip("the system does not tell")
    array = large_zeros((4 * LEAST_BYTES,), np.float32)
    address = array.ctypes.data
    for block in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", maps.read_text()):
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", block)
        if bounds and int(bounds[1], 16) <= address < int(bounds[2], 16):
            assert re.search(r"(?m)^VmFlags:.* hg\b", block), block
            return
    pytest.fail("the array is in no mapping")
