"""`prepare_workers`: does the imports that dominate a local worker's start, ahead of time and once for all workers.

This module imports little, so that the command line can call it before its own heavy imports.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

from dist_gat.config.sections import LaunchConfig
from dist_gat.launcher.host import worker_environment
from dist_gat.launcher.sockets import shorten_process_sockets

# torch's optimisers and DDP import torch._dynamo when they are first used
PRELOAD = ["dist_gat.jobs.training", "torch._dynamo"]


def prepare_workers(launch: LaunchConfig) -> None:
    """Begin the imports of local workers, where a run will start any; returns at once."""
    if launch.launcher == "local" and launch.num_workers > 1:
        start_nursery(launch)


def start_nursery(launch: LaunchConfig, *modules: str) -> None:
    """Start the fork server of local workers, unless it runs already.

    It imports what workers need, and further `modules`, runs nothing, and ends with this process.
    """
    shorten_process_sockets()
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOAD, *modules])
    with environment(worker_environment(launch)):
        forkserver.ensure_running()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that the block starts, and restore these variables afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
