"""The one place that imports DGL.

DGL 1.1.3 is the release whose PyPI wheel loads beside any torch, because it predates GraphBolt, whose
library is bound to one exact torch. Two side effects of its import are kept quiet here: it announces a
default backend on standard output (and writes a file into the home folder) unless DGLBACKEND is set, and its
prefetcher gives up after 30 s, which a slow remote batch may take: process groups have their own timeout,
whose error says more.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

os.environ.setdefault("DGLBACKEND", "pytorch")
os.environ.setdefault("DGL_PREFETCHER_TIMEOUT", "86400")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dgl
    from dgl.dataloading import BlockSampler, DataLoader

__all__ = ["BlockSampler", "DataLoader", "dgl", "metis_assignment"]


def metis_assignment(dst, src, num_nodes: int, num_parts: int):  # type: ignore[no-untyped-def]
    """int64 [num_nodes]: the METIS part of each node, edges and nodes balanced; `dst`, `src` in both directions."""
    graph = dgl.graph((src, dst), num_nodes=num_nodes)
    with _silent_output():
        return dgl.metis_partition_assignment(graph, num_parts, balance_edges=True).numpy()


@contextmanager
def _silent_output() -> Iterator[None]:
    """Send file descriptors 1 and 2 nowhere: DGL's partitioner reports from C++ and Python alike."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(fd, os.dup(fd)) for fd in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd, _ in saved:
            os.dup2(null, fd)
        with redirect_stdout(None), redirect_stderr(None):
            yield
    finally:
        for fd, copy in saved:
            os.dup2(copy, fd)
            os.close(copy)
        os.close(null)
