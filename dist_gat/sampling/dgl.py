"""The one place that imports DGL.

DGL 1.1.3 is the release whose PyPI wheel loads beside any torch, because it predates GraphBolt, whose
library is bound to one exact torch. Two side effects of its import are kept quiet here: it announces a
default backend on standard output (and writes a file into the home folder) unless DGLBACKEND is set, and its
prefetcher gives up after 30 s, which a slow remote batch may take: process groups have their own timeout,
whose error says more.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("DGLBACKEND", "pytorch")
os.environ.setdefault("DGL_PREFETCHER_TIMEOUT", "86400")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dgl
    from dgl.dataloading import BlockSampler, DataLoader

__all__ = ["BlockSampler", "DataLoader", "dgl"]
