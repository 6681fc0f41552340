"""Pruning: of each user the most doubtful interactions carry no messages. They stay what is learned and predicted.

An interaction of a user u with an item i is the more doubtful, the less u is like the others who met i:

    s(u, i) = mean over u' in N(i) \\ u of |N(u) ∩ N(u') \\ i| / sqrt((d(u) - 1) (d(u') - 1)),

the cosine of two users' other items, as degrees d normalise it. So an interaction has no part in its own support. RGCF
(Tian et al., SIGIR 2022) prunes by such a similarity of a user and an item too, of rows that it learns; this one is
known before training. Of an item with very many users, `MOST_PEERS` of them count, drawn by a hash.

Shape legend: E interactions, U users, I items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.config.data_sections import PruneConfig
from dist_gat.data.dataset import WEIGHT
from dist_gat.data.edge_file import Columns, EdgeFile, write_edges
from dist_gat.kernels.threads import cut, in_threads

MOST_PEERS = 64
USERS_AT_ONCE = 1 << 10


def without_doubtful(
    edges: EdgeFile, folder: Path, num_items: int, config: PruneConfig, min_weight: float | None, rows: int,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[EdgeFile, dict[str, Any]]:  # fmt: skip
    """The interactions that carry messages, in a new file in `folder`, and what the report of `prepare` says of it.

    edges: of training, by user and item. min_weight: those below carry no messages anyway, and are left out here too.
    Takes 20 bytes an interaction. The result depends on nothing but the edges and the settings.
    """
    carries_E, own = _messages(edges, min_weight)
    users_E, items_E = own["source"], own["target"]
    progress(f"weighing {len(users_E):,} interactions")
    similarity_E = similarities(users_E, items_E, num_items)
    kept_E = ~doubtful(users_E, items_E, similarity_E, num_items, config)
    carries_E[carries_E] = kept_E
    found = write_edges(folder, edges.types, _chosen(edges, carries_E, rows))
    return found, {"interactions": int((~kept_E).sum()), "of": len(kept_E)}


def _messages(edges: EdgeFile, min_weight: float | None) -> tuple[np.ndarray, Columns]:
    """bool [edges], which carry messages, and the ends of these."""
    own = edges.read(0, edges.count, ["source", "target"])
    if min_weight is None or WEIGHT not in edges.types:
        return np.ones(edges.count, bool), own
    carries_E = edges.read(0, edges.count, [WEIGHT])[WEIGHT] >= min_weight
    return carries_E, {name: values[carries_E] for name, values in own.items()}


def _chosen(edges: EdgeFile, kept_E: np.ndarray, rows: int) -> Iterator[Columns]:
    start = 0
    for chunk in edges.chunks(rows):
        kept = kept_E[start : start + len(chunk["source"])]
        start += len(kept)
        yield {name: values[kept] for name, values in chunk.items()}


def similarities(users_E: np.ndarray, items_E: np.ndarray, num_items: int) -> np.ndarray:
    """s(u, i) of each interaction, float32 [E]; 0 where nobody else met the item. users_E, items_E: sorted by both."""
    num_users = int(users_E[-1]) + 1 if len(users_E) else 0
    of_user = _starts(users_E, num_users)
    drawn_U = hash_ids(make_key(0, Purpose.PRUNING), np.arange(num_users))
    by_item = np.lexsort((drawn_U[users_E], items_E))
    users_of_item, of_item = users_E[by_item], _starts(items_E, num_items)
    similarity_E = np.zeros(len(users_E), np.float32)

    def some(users: slice) -> None:
        _similarities(users.start, users.stop, of_user, items_E, of_item, users_of_item, similarity_E)

    in_threads(some, cut(num_users, USERS_AT_ONCE))
    return similarity_E


def _starts(sorted_or_not: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(sorted_or_not, minlength=size))])


@njit(nogil=True, cache=True)
def _similarities(first, last, of_user, items_E, of_item, users_of_item, similarity_E):  # type: ignore[no-untyped-def]
    met_by = np.full(of_item.shape[0], -1, np.int64)  # of an item, the last user of this run who met it
    for user in range(first, last):
        start, stop = of_user[user], of_user[user + 1]
        for e in range(start, stop):
            met_by[items_E[e]] = user
        if stop - start < 2:
            continue
        for e in range(start, stop):
            item = items_E[e]
            total, others = 0.0, 0
            for p in range(of_item[item], min(of_item[item + 1], of_item[item] + MOST_PEERS)):
                other = users_of_item[p]
                if other == user:
                    continue
                others += 1
                common = -1  # the item itself
                for f in range(of_user[other], of_user[other + 1]):
                    common += met_by[items_E[f]] == user
                if common > 0:
                    total += common / math.sqrt((stop - start - 1) * (of_user[other + 1] - of_user[other] - 1))
            if others:
                similarity_E[e] = total / others


def doubtful(
    users_E: np.ndarray, items_E: np.ndarray, similarity_E: np.ndarray, num_items: int, config: PruneConfig
) -> np.ndarray:
    """bool [E]: of each user the share `config.share`, rounded down, with the lowest similarity; of equal ones those of
    the smaller index. Of items with few interactions nothing is known, and none is doubtful."""
    is_known_E = np.bincount(items_E, minlength=num_items)[items_E] >= config.min_item_interactions
    order = np.lexsort((items_E, np.where(is_known_E, similarity_E, np.inf), users_E))
    degree = np.bincount(users_E)
    rank_E = np.empty(len(users_E), np.int64)
    rank_E[order] = np.arange(len(users_E)) - np.repeat(np.cumsum(degree) - degree, degree)
    return is_known_E & (rank_E < np.floor(config.share * degree)[users_E])
