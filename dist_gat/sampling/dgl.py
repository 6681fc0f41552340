"""The one place that imports DGL, with base classes of our own where it can't be loaded.

DGL 1.1.3 is the release whose PyPI wheel loads beside any torch, because it predates GraphBolt, whose library is bound
to one exact torch. It has wheels for Python 3.10 and 3.11. Release 2.1.0, for 3.12, imports GraphBolt, which we do not
use: an empty module stands in for it meanwhile.

Two side effects of the import are kept quiet here: DGL announces a default backend on standard output (and writes a
file into the home folder) unless DGLBACKEND is set, and its prefetcher gives up after 30 s, which a slow remote batch
may take: process groups have their own timeout, whose error says more.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from dist_gat.base.errors import first_line

os.environ.setdefault("DGLBACKEND", "pytorch")
os.environ.setdefault("DGL_PREFETCHER_TIMEOUT", "86400")
GRAPHBOLT = "dgl.graphbolt"


@contextmanager
def without_graphbolt() -> Iterator[None]:
    """Meanwhile, importing GraphBolt imports nothing, unless it has been imported before."""
    if GRAPHBOLT in sys.modules:
        yield
        return
    sys.modules[GRAPHBOLT] = ModuleType(GRAPHBOLT)
    try:
        yield
    finally:
        del sys.modules[GRAPHBOLT]


try:
    with without_graphbolt(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dgl
        from dgl.dataloading import BlockSampler, DataLoader
    WHY_NOT_DGL = ""
# a package that is not there, a library that does not load, or another that has changed since
except Exception as err:
    from dist_gat.sampling.without_dgl import BlockSampler, DataLoader

    dgl = None
    WHY_NOT_DGL = f"{type(err).__name__}: {first_line(err)}"

__all__ = ["WHY_NOT_DGL", "BlockSampler", "DataLoader", "dgl"]
