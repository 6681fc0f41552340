"""The running top K against a full sort: exact, with ties by item, whatever the blocks and chunks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.evaluate.topk import STRIP, USERS_PER_TASK, RunningTopK, known_items


@given(
    st.sampled_from([1, 3, 6, USERS_PER_TASK + 3]),
    st.one_of(st.integers(0, 30), st.integers(STRIP, 3 * STRIP)),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
def test_it_is_the_head_of_a_full_sort(num_users: int, num_items: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # few distinct scores, so that ties are the rule
    scores = rng.integers(0, 4, (num_users, num_items)).astype(np.float32)
    known = rng.random((num_users, num_items)) < 0.3
    first_user, first_item = 50, 1000
    pairs = np.argwhere(known) + [first_user, first_item]
    halves = rng.random(len(pairs)) < 0.5
    met = known_items(np.arange(first_user, first_user + num_users), [pairs[halves], pairs[~halves]])
    best = RunningTopK(num_users, k)
    cuts = sorted(rng.integers(0, num_items + 1, 3).tolist())
    blocks = list(zip([0, *cuts], [*cuts, num_items], strict=True))
    middle = int(rng.integers(0, num_users + 1))
    for start, stop in [blocks[i] for i in rng.permutation(len(blocks))]:
        for first, last in ((0, middle), (middle, num_users)):
            best.merge(first, scores[first:last, start:stop], first_item + start, met)
    for user in range(num_users):
        free = [item for item in range(num_items) if not known[user, item]]
        expected = sorted(free, key=lambda item: (-scores[user, item], item))[:k]
        assert best.items_UK[user].tolist() == [first_item + i for i in expected] + [-1] * (k - len(expected))
        assert best.scores_UK[user, : len(expected)].tolist() == [scores[user, item] for item in expected]


def test_known_items_are_passed_over_behind_strips_without_a_better_item() -> None:
    """A user whose best items come first, in strips, then known ones in many strips, then one last good item."""
    num_items, k = 6 * STRIP, 2
    scores = np.full((1, num_items), -1.0, dtype=np.float32)
    scores[0, :k] = 1.0
    known = [2 * STRIP, 3 * STRIP + 1, 5 * STRIP + 5]
    scores[0, known[-1]] = scores[0, known[-1] + 1] = 2.0
    best = RunningTopK(1, k)
    best.merge(0, scores, 0, known_items(np.arange(1), [np.array([(0, item) for item in known])]))
    assert best.items_UK.tolist() == [[known[-1] + 1, 0]]


def test_items_without_a_finite_score_are_never_ranked() -> None:
    best = RunningTopK(1, 3)
    met = known_items(np.arange(1), [])
    best.merge(0, np.array([[np.nan, -np.inf, 1.0]], dtype=np.float32), 0, met)
    assert best.items_UK.tolist() == [[2, -1, -1]]
