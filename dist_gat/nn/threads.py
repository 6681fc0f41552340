"""`in_threads`: run a nogil kernel on slices of its work, in as many threads as torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_threads(task: Callable[[slice], None], size: int, step: int) -> None:
    """Call `task` with slices of `step` that cover `size`. The caller works too, helpers take what is left.

    Threads of our own, because numba's default threading layer aborts when two threads enter it, and the
    sampler's prefetch thread runs numba as well.
    """
    num_slices = -(-size // step)
    # helpers draw from one iterator: a thread that the system holds up does not hold up the others' slices
    slices = iter([slice(i * step, min((i + 1) * step, size)) for i in range(num_slices)])

    def work() -> None:
        for part in slices:
            task(part)

    num_helpers = min(torch.get_num_threads(), num_slices) - 1
    helpers = [_helpers(os.getpid()).submit(work) for _ in range(num_helpers)]
    work()
    for helper in helpers:
        helper.result()


@cache
def _helpers(pid: int) -> ThreadPoolExecutor:
    """The helpers of a process, which start when they are first needed; a forked child can't use its parent's."""
    return ThreadPoolExecutor(os.cpu_count(), "attend")
