"""`UserItems`: the training interactions of each user with their weights, R, as one sparse matrix per part.

Users are the sources of a relation, items its targets.

Shape legend: U users of a part, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import numpy as np
from scipy.sparse import csr_array

from dist_gat.filters.history_weights import HistoryWeights, decay, newer_in_history, rated
from dist_gat.sampling.graph_store import GraphStore

# float32 [U, N] of a part: the weight of each interaction
UserItems = Callable[[int], csr_array]


def training_items(store: GraphStore, weights: HistoryWeights) -> UserItems:
    """R of any part. Collective: all ranks ask for the same parts in turn."""

    def of_part(part: int) -> csr_array:
        pairs, values, times = [], [], []
        for relation, weight in weights.relations.items():
            starts = store.prepared.pair_starts(relation, "train")
            numbers = np.arange(starts[part], starts[part + 1])
            pairs.append(store.pairs(relation, "train", numbers))
            values.append(np.full(len(numbers), weight, np.float32))
            if weights.edge_weights != "none" and store.prepared.has_label(relation, "weight"):
                values[-1] *= rated(store.pair_labels(relation, "train", "weight", numbers), weights.edge_weights)
            if weights.half_life is not None:
                times.append(store.pair_times(relation, "train", numbers))
        if weights.half_life is not None:
            newer = newer_in_history(np.concatenate(pairs)[:, 0], np.concatenate(times))
            decayed = np.split(decay(newer, weights.half_life), np.cumsum([len(one) for one in pairs])[:-1])
            values = [value * factor for value, factor in zip(values, decayed, strict=True)]
        users = np.array(store.ranges.nodes_of_type(part, next(iter(weights.relations)).source), dtype=np.int64)
        shape = (len(users), store.ranges.num_nodes)
        matrices = [
            csr_array((value, one[:, 1], np.append(np.searchsorted(one[:, 0], users), len(one))), shape=shape)
            for one, value in zip(pairs, values, strict=True)
        ]
        # pairs that several relations have add up
        return reduce(add, matrices)

    return of_part
