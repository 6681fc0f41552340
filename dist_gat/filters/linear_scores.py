"""`LinearScores`: the scores of `LinearFilter` for few users, from the users who have items in common with them.

Where `LinearFilter` makes columns of an item × item matrix for all users, this adds up the interactions of each user's
companions: whom the user has items in common with. Every score is added up in one order, whoever else is asked about.

Shape legend: n users that are asked about, U users of a part, m items, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from scipy.sparse import csr_array, diags_array

from dist_gat.filters.linear_filter import LinearFilter, user_scale
from dist_gat.filters.user_items import UserItems
from dist_gat.kernels.threads import cut, in_threads

USERS_PER_TASK = 4


@dataclass(frozen=True)
class LinearScores:
    """by_item: of a part, float32 [N, U], what users have met, transposed and scaled by users; it is read once, and so
    are the `profiles` of the filter."""

    linear: LinearFilter
    by_item: Callable[[int], csr_array]

    def companions(self, profile_nN: csr_array) -> list[csr_array]:
        """By part, float32 [n, U]: the weights of its users in the scores of users with these training items."""
        left_nN = diags_array(user_scale(profile_nN)) @ profile_nN @ diags_array(self.linear.item_scale_N)
        return [csr_array(left_nN @ self.by_item(part)) for part in range(self.linear.num_parts)]

    def scores(self, companions: list[csr_array], items: np.ndarray) -> np.ndarray:
        """float32 [n, m]: of item nodes, int64, in any order."""
        num_users, order = companions[0].shape[0], np.argsort(items, kind="stable")
        ascending = items[order]
        scores_nm = np.zeros((num_users, len(items)), np.float32)
        for part, weights_nU in enumerate(companions):
            profile_UN = self.linear.profiles(part)

            def task(users: slice, ours: csr_array = weights_nU, theirs: csr_array = profile_UN) -> None:
                weights = ours.indptr, ours.indices, ours.data
                met = theirs.indptr, theirs.indices, theirs.data
                _add(users.start, users.stop, *weights, *met, ascending, scores_nm)

            in_threads(task, cut(num_users, USERS_PER_TASK))
        scores_nm *= self.linear.item_scale_N[ascending]
        found_nm = np.empty_like(scores_nm)
        found_nm[:, order] = scores_nm
        return found_nm


def open_linear_scores(profiles: UserItems, num_parts: int, num_nodes: int) -> LinearScores:
    """profiles: see `LinearFilter`; they are read once here."""
    kept = cache(profiles)

    def by_item(part: int) -> csr_array:
        profile_UN = kept(part)
        return csr_array((diags_array(user_scale(profile_UN) ** 2) @ profile_UN).T)

    return LinearScores(LinearFilter(kept, num_parts, num_nodes), cache(by_item))


@njit(nogil=True, cache=True, error_model="numpy")
def _add(first, last, starts, companions, weights, their_starts, their_items, values, items, scores):  # type: ignore[no-untyped-def]
    """Add weight times value of every companion of users first to last. items: ascending."""
    num_items = len(items)
    if num_items == 0:
        return
    lowest, is_range = items[0], items[num_items - 1] - items[0] == num_items - 1
    for user in range(first, last):
        for at in range(starts[user], starts[user + 1]):
            companion, weight = companions[at], weights[at]
            for met in range(their_starts[companion], their_starts[companion + 1]):
                item = their_items[met]
                place = item - lowest if is_range else np.searchsorted(items, item)
                if 0 <= place < num_items and items[place] == item:
                    scores[user, place] += weight * values[met]
