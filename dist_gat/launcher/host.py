"""Settings of a worker's process that no library sets well by itself: threads and the C allocator."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

from dist_gat.config.sections import LaunchConfig

# from malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
KEEP_BYTES = 1 << 30
# OpenMP's threads would otherwise spin for milliseconds after their work, on the cores that our kernels' and the
# prefetch's threads wait for: an attention layer on 2 cores took 1.4 times as long
WAIT_POLICY = {"OMP_WAIT_POLICY": "passive"}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_worker(launch: LaunchConfig) -> int:
    """The configured threads, or an even share of this host's cores."""
    return launch.threads_per_worker or max(1, cores() // launch.num_workers)


def worker_environment(launch: LaunchConfig) -> dict[str, str]:
    """Environment variables that must be set before a worker's libraries load."""
    threads = str(threads_per_worker(launch))
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    environment |= WAIT_POLICY
    if launch.interface is not None:
        environment |= {"GLOO_SOCKET_IFNAME": launch.interface, "NCCL_SOCKET_IFNAME": launch.interface}
    return environment


def let_threads_sleep() -> None:
    """Let idle OpenMP threads of this process sleep, unless its environment says otherwise. Before torch is loaded."""
    for name, value in WAIT_POLICY.items():
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Let glibc keep large blocks in its heap instead of returning each to the kernel.

    A training step allocates and frees the same tens of megabytes again and again; with glibc's defaults the
    kernel zeroes fresh pages for every one of them, which was two thirds of the step's time in a trial.
    Without glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
        mallopt(M_TOP_PAD, KEEP_BYTES >> 4)
        # one arena: the others can't hold blocks of this size
        mallopt(M_ARENA_MAX, 1)


def end_with_parent() -> None:
    """From now on, end this process as soon as its parent ends, even by SIGKILL, so that no worker is left behind.

    The kernel's own signal for this (PR_SET_PDEATHSIG) would wait for the fork server, which forked this process and
    lives on while it has children.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child process has a parent to end with"

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
