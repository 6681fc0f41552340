"""An index of the items' vectors for approximate search by inner product, by the library usearch.

Keys are numbers of rows in items.parquet. Read it with `usearch.index.Index.restore(path)`.

Shape legend: M items, n users, D numbers of a vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from dist_gat.export.extra import need

NUM_CHECKED, CHECKED_K = 1000, 20


def write_index(path: Path, items_MD: Tensor, users_nD: Tensor) -> float:
    """Build and save it. Returns the share of the exact first 20 of up to 1,000 users that it finds."""
    usearch = need("usearch.index", "export of an index")
    index = usearch.Index(ndim=items_MD.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_search=256)
    index.add(np.arange(len(items_MD)), np.ascontiguousarray(items_MD.numpy()))
    index.save(str(path))
    step = max(1, len(users_nD) // NUM_CHECKED)
    asked_nD, k = users_nD[::step][:NUM_CHECKED], min(CHECKED_K, len(items_MD))
    exact = (asked_nD @ items_MD.T).topk(k, dim=1).indices.numpy()
    found = np.asarray(index.search(np.ascontiguousarray(asked_nD.numpy()), k).keys).reshape(len(asked_nD), -1)
    hits = [len(np.intersect1d(one, other)) for one, other in zip(exact, found, strict=True)]
    return float(np.mean(hits)) / k
