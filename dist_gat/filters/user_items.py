"""Profiles: what each user has met in the training graph, as a sparse matrix a part.

Shape legend: U users of a part, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from dist_gat.evaluate.topk import known_items
from dist_gat.graph.ranges import USER
from dist_gat.sampling.graph_store import GraphStore

# float32 [U, N] of a part: 1 at each interaction
Profiles = Callable[[int], csr_array]


def training_profiles(store: GraphStore) -> Profiles:
    """The training interactions of the users of any part. Collective: all ranks ask for the same parts in turn."""
    starts = store.prepared.edge_starts("train")
    return lambda part: _matrix(store, part, store.edges("train", np.arange(starts[part], starts[part + 1])))


def own_profile(store: GraphStore, part: int) -> csr_array:
    """The same of one of this rank's parts, without asking anyone."""
    return _matrix(store, part, store.prepared.parts[part].edges["train"])


def _matrix(store: GraphStore, part: int, pairs: np.ndarray) -> csr_array:
    users = store.ranges.nodes_of_type(part, USER)
    return known_items(users.start, len(users), [pairs]).matrix(store.ranges.num_nodes)
