"""`in_threads`: run a nogil kernel on slices of its work, in as many threads as torch may use.

`in_all_threads` is for kernels that share their work out by themselves, with `dist_gat.kernels.atomics`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def cut(stop: int, step: int, start: int = 0) -> list[slice]:
    """Slices of `step` that cover `start` to `stop`."""
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]


def in_threads(task: Callable[[slice], object], work: Sequence[slice]) -> None:
    """Call `task` with each slice of `work`. The caller works too, helpers take what is left.

    Threads of our own, because numba's default threading layer aborts when two threads enter it, and the
    sampler's prefetch thread runs numba as well.
    """
    # helpers draw from one iterator: a thread that the system holds up does not hold up the others' slices
    slices = iter(work)

    def do_some() -> None:
        for part in slices:
            task(part)

    num_helpers = min(torch.get_num_threads(), len(work)) - 1
    helpers = [_helpers(os.getpid()).submit(do_some) for _ in range(num_helpers)]
    do_some()
    for helper in helpers:
        # one that the system has not started yet is not waited for: nothing is left
        if not helper.cancel():
            helper.result()


def in_all_threads(most: int, kernel: Callable[..., object], *arguments: object) -> None:
    """Call a nogil kernel that shares its work out by itself, in as many threads as torch may use, up to `most`."""
    in_threads(lambda _: kernel(*arguments), cut(min(torch.get_num_threads(), most), 1))


@cache
def _helpers(pid: int) -> ThreadPoolExecutor:
    """The helpers of a process, which start when they are first needed; a forked child can't use its parent's."""
    return ThreadPoolExecutor(os.cpu_count(), "kernels")
