from __future__ import annotations

import numpy as np
import pytest
from helpers import prepare_pairs

from dist_gat.graph.part import PreparedGraph


@pytest.fixture(scope="session")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> PreparedGraph:
    """2,500 users and as many items, 30,000 distinct pairs of power-law degrees, in 4 hashed parts."""
    rng, size = np.random.default_rng(0), 2500
    shares = [np.arange(1, size + 1) ** -skew for skew in (0.6, 0.8)]
    users, items = (rng.choice(size, 60_000, p=share / share.sum()) for share in shares)
    pairs = rng.permutation(np.unique(np.stack([users, items], axis=1), axis=0))[:30_000]
    return prepare_pairs(tmp_path_factory.mktemp("skewed"), [(int(u), int(i)) for u, i in pairs])
