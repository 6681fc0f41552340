"""Benchmarks against peers: `python -m benchmarks`, or one of them as `python -m benchmarks.NAME`."""

from dist_gat.launcher.host import let_threads_sleep

let_threads_sleep()  # as in our workers, for both sides, and before torch is loaded
