"""The training items of each user, as one sparse matrix per part. Users are the sources of a relation.

Shape legend: U users of a part, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from dist_gat.evaluate.topk import known_items
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

# float32 [U, N] of a part: 1 at each interaction
UserItems = Callable[[int], csr_array]


def training_items(store: GraphStore, relation: Relation) -> UserItems:
    """The training items of the users of any part. Collective: all ranks ask for the same parts in turn."""
    starts = store.prepared.pair_starts(relation, "train")

    def of_part(part: int) -> csr_array:
        numbers = np.arange(starts[part], starts[part + 1])
        return _matrix(store, part, relation, store.pairs(relation, "train", numbers))

    return of_part


def own_items(store: GraphStore, part: int, relation: Relation) -> csr_array:
    """The training items of the users of one of this rank's parts, without communication."""
    return _matrix(store, part, relation, store.prepared.parts[part].pairs(relation, "train"))


def _matrix(store: GraphStore, part: int, relation: Relation, pairs: np.ndarray) -> csr_array:
    users = store.ranges.nodes_of_type(part, relation.source)
    return known_items(np.array(users, dtype=np.int64), [pairs]).matrix(store.ranges.num_nodes)
