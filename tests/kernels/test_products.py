"""Inner products have the same bits alone, in any batch, at any place and in any cut of the items."""

from __future__ import annotations

import numpy as np
import pytest

from dist_gat.kernels.products import LANES, MANY, USERS_IN_PANEL, add_products


def products(users_nR: np.ndarray, items_mR: np.ndarray) -> np.ndarray:
    scores_nm = np.zeros((len(users_nR), len(items_mR)), np.float32)
    add_products([users_nR], [items_mR], scores_nm)
    return scores_nm


@pytest.mark.parametrize("size", [1, LANES - 1, LANES, LANES + 3, 5 * LANES, 7 * LANES + 2])
def test_the_bits_of_a_pair_depend_on_its_two_rows_alone(size: int) -> None:
    rng = np.random.default_rng(size)
    users, items = (rng.standard_normal((n, size), dtype=np.float32) for n in (11, 131))
    together = products(users, items)
    np.testing.assert_allclose(together, users.astype(np.float64) @ items.T, rtol=1e-4, atol=1e-4)
    for first, last in ((0, 1), (10, 11), (3, 9)):
        for start, stop in ((0, 131), (5, 6), (1, 4), (60, 131)):
            own = products(users[first:last], np.ascontiguousarray(items[start:stop]))
            assert np.array_equal(own, together[first:last, start:stop]), (first, start)
    order = rng.permutation(len(items))
    assert np.array_equal(products(users[::-1].copy(), items[order]), together[::-1][:, order])


@pytest.mark.parametrize("size", [1, LANES - 1, LANES, LANES + 3, 5 * LANES, 7 * LANES + 2, 64 * LANES])
@pytest.mark.parametrize("num_users", [MANY, MANY + 1, MANY + USERS_IN_PANEL + 7])
def test_many_users_have_the_bits_of_few(num_users: int, size: int) -> None:
    rng = np.random.default_rng(size)
    users, items = (rng.standard_normal((n, size), dtype=np.float32) for n in (num_users, 1000))
    items.flags.writeable = False
    before = rng.standard_normal((num_users, len(items)), dtype=np.float32)
    together, few = before.copy(), before.copy()
    add_products([users, users], [items, items], together)
    for first in range(0, num_users, MANY - 1):
        some = users[first : first + MANY - 1]
        add_products([some, some], [items, items], few[first : first + MANY - 1])
    assert np.array_equal(together, few)


def test_products_are_added_to_what_is_there() -> None:
    scores = np.ones((1, 3), np.float32)
    users, items = np.full((1, 2), 2, np.float32), np.array([[1, 1], [0, 3], [5, -5]], np.float32)
    add_products([users], [items], scores)
    assert scores.tolist() == [[5.0, 7.0, 1.0]]
    add_products([users, users], [items, items], scores)
    assert scores.tolist() == [[13.0, 19.0, 1.0]]


def test_no_users_or_no_columns_are_no_products() -> None:
    assert products(np.zeros((0, 3), np.float32), np.zeros((5, 3), np.float32)).shape == (0, 5)
    assert products(np.zeros((2, 0), np.float32), np.zeros((5, 0), np.float32)).tolist() == [[0.0] * 5] * 2
