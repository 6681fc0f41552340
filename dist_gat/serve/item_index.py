"""`ItemIndex`: an inverted file of the items' rows (faiss' IVF), where reading all of them takes too long.

It finds candidates, whose scores are then the exact ones; what it misses is missing. So it is used only by choice, and
its recall against the exact search is measured when it is built: in seconds, for each model that takes over.

Shape legend: n users, R + k columns of ranking rows, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dist_gat.base.extra import missing
from dist_gat.evaluate.topk import RunningTopK
from dist_gat.serve.ranker import RankedUsers, Ranker

# of faiss' guidelines: lists of an inverted file for n vectors, in units of sqrt(n)
LISTS = 4
# candidates for each item that is asked for, beside what a user must not get
CANDIDATES = 4
MEASURED_USERS, MEASURED_K = 256, 20


@dataclass(frozen=True)
class ItemIndex:
    """index: faiss' one of vectors. nodes: int64, item node of each. recall: of the exact 20 best items, the share that
    it finds, as a mean over some users."""

    ranker: Ranker
    index: Any
    nodes: np.ndarray
    recall: float = 0.0

    def best(self, users: RankedUsers, k: int) -> RunningTopK:
        """As `Ranker.best`, of what the index finds. Users of whom nothing is known are ranked exactly."""
        best = RunningTopK(len(users), k)
        left_out = np.diff(users.known.indptr)
        count = min(len(self.nodes), CANDIDATES * k + int(left_out.max(initial=0)))
        _, found_nC = self.index.search(users.rows_nR, count)
        for user in range(len(users)):
            one = users.at(user)
            if one.by_popularity[0]:
                own = self.ranker.best(one, k)
            else:
                candidates = np.sort(self.nodes[found_nC[user][found_nC[user] >= 0]])
                own = self.ranker.best_among(one, k, candidates)
            best.scores_UK[user], best.items_UK[user] = own.scores_UK[0], own.items_UK[0]
        return best


def build_index(ranker: Ranker, probes: int) -> ItemIndex:
    """probes: lists that a search looks into: more find more and take longer. Raises `ConfigError` without faiss."""
    try:
        import faiss
    except ImportError:
        raise missing("faiss", "an index", "index") from None
    nodes = np.sort(ranker.items.nodes)
    rows_IR = np.ascontiguousarray(ranker.rows_of_items(nodes))
    num_lists = max(1, min(len(nodes) // 39, int(LISTS * len(nodes) ** 0.5)))  # k-means wants 39 vectors a list
    size = rows_IR.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, num_lists, faiss.METRIC_INNER_PRODUCT)
    index.train(rows_IR)
    index.add(rows_IR)
    index.nprobe = min(probes, num_lists)
    built = ItemIndex(ranker, index, nodes)
    return ItemIndex(ranker, index, nodes, recall_of(built))


def save_index(index: ItemIndex, path: Path) -> None:
    """For `faiss.read_index`, which numbers items by their nodes, ascending, from 0."""
    import faiss

    faiss.write_index(index.index, str(path))


def recall_of(index: ItemIndex) -> float:
    """The mean over some users, evenly spread."""
    nodes = np.sort(index.ranker.users.nodes)
    users = index.ranker.known_users(nodes[:: max(1, len(nodes) // MEASURED_USERS)])
    exact = index.ranker.best(users, MEASURED_K).items_UK
    found = index.best(users, MEASURED_K).items_UK
    shares = [
        len(np.intersect1d(ours[ours >= 0], theirs)) / int((ours >= 0).sum())
        for ours, theirs in zip(exact, found, strict=True)
        if ours[0] >= 0  # others have met everything
    ]
    return float(np.mean(shares)) if shares else 1.0
