"""`RunningTopK`: the best K items of many users, from score blocks that arrive one after another.

Exact and deterministic: equal scores are ordered by item node ID, so the result depends neither on the
order of blocks nor on how users are chunked. Memory is users × K.

Shape legend: U users, K best items, n users of a chunk, M items of a block.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dist_gat.base.pairs import sort_pairs
from dist_gat.kernels.threads import cut, in_threads

STRIP, USERS_PER_TASK = 64, 128


class RunningTopK:
    """items_UK: int64, -1 where fewer than K items are known; scores_UK: float32, descending, -inf there."""

    def __init__(self, num_users: int, k: int) -> None:
        self.scores_UK = np.full((num_users, k), -np.inf, dtype=np.float32)
        self.items_UK = np.full((num_users, k), -1, dtype=np.int64)

    def merge(self, first_user: int, scores_nM: np.ndarray, first_item: int, known: Known) -> None:
        """Take in the scores of users first_user… for item nodes first_item…, passing over `known` items."""

        def task(chunk: slice) -> None:
            first, last = first_user + chunk.start, first_user + chunk.stop
            indptr = known.indptr[first : last + 1]
            best = self.scores_UK[first:last], self.items_UK[first:last]
            _merge(scores_nM[chunk], first_item, indptr, known.items, *best)

        in_threads(task, cut(len(scores_nM), USERS_PER_TASK))

    def part(self, users: slice, k: int) -> RunningTopK:
        """The k best, at most K, of some users."""
        found = RunningTopK(0, k)
        found.scores_UK, found.items_UK = self.scores_UK[users, :k], self.items_UK[users, :k]
        return found


class Known:
    """Items that must not be ranked: those that each user is known to have met. CSR over users."""

    def __init__(self, indptr: np.ndarray, items: np.ndarray) -> None:
        """indptr: int64 [U + 1]; items: item node IDs, ascending within a user."""
        self.indptr, self.items = indptr, items

    def of(self, users: np.ndarray) -> Known:
        """The known items of some users, given by position."""
        count = np.diff(self.indptr)[users]
        indptr = np.concatenate([[0], np.cumsum(count)])
        positions = np.arange(indptr[-1]) + np.repeat(self.indptr[users] - indptr[:-1], count)
        return Known(indptr, self.items[positions])


def known_items(users: np.ndarray, edges: list[np.ndarray]) -> Known:
    """`Known` of int64 [U] users, which ascend, from int64 [m, 2] (user, item) arrays of those users, in any order."""
    pairs = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    user_of, items = sort_pairs(pairs[:, 0], pairs[:, 1])
    indptr = np.append(np.searchsorted(user_of, users), len(user_of))
    return Known(indptr.astype(np.int64), items)


@njit(nogil=True, cache=True)
def _merge(scores_nM, first_item, indptr, known, best_scores, best_items):  # type: ignore[no-untyped-def]
    num_items, k = scores_nM.shape[1], best_scores.shape[1]
    for u in range(scores_nM.shape[0]):
        scores, row_scores, row_items = scores_nM[u], best_scores[u], best_items[u]
        met = known[indptr[u] : indptr[u + 1]]
        cursor = np.searchsorted(met, first_item)
        for start in range(0, num_items, STRIP):
            stop = min(start + STRIP, num_items)
            if stop - start == STRIP and not _has_better(scores, start, row_scores[k - 1]):
                continue
            for j in range(start, stop):
                score, item, worst = scores[j], first_item + j, row_scores[k - 1]
                if score < worst or (score == worst and row_items[k - 1] >= 0 and item > row_items[k - 1]):
                    continue
                if not score > -np.inf:
                    continue
                while cursor < met.shape[0] and met[cursor] < item:
                    cursor += 1
                if cursor < met.shape[0] and met[cursor] == item:
                    continue
                place = k - 1
                while place > 0 and (
                    row_items[place - 1] < 0
                    or row_scores[place - 1] < score
                    or (row_scores[place - 1] == score and row_items[place - 1] > item)
                ):
                    row_scores[place], row_items[place] = row_scores[place - 1], row_items[place - 1]
                    place -= 1
                row_scores[place], row_items[place] = score, item


@njit(nogil=True, cache=True)
def _has_better(scores, start, worst):  # type: ignore[no-untyped-def]
    """Whether any of the STRIP scores from `start` on is at least `worst`; mostly none is.

    A constant length, and integers instead of booleans, let the compiler make a few vector comparisons of it.
    """
    found = np.int32(0)
    for j in range(start, start + STRIP):
        found |= np.int32(scores[np.uint64(j)] >= worst)
    return found > 0
