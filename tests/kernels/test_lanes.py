"""Lanes of a numba kernel against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from dist_gat.kernels import lanes
from dist_gat.kernels.lanes import choose, dot, exp, fill, fma, known, load, sqrt, store, total, width_of

TYPES = [np.float32, np.float64]


@njit
def arithmetic(rows, out, factor, width):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        for i in range(0, rows.shape[1], len(width)):
            x, y = load(rows, row, i, width), load(rows, 0, i, width)
            z = (x + y) * factor - x * y / fill(rows[row, 0], width)
            store(out, row, i, choose(x, y, z, y - factor))


@njit
def sums(rows, out, width):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        x = load(rows, row, 0, width)
        out[row, 0], out[row, 1] = total(x), dot(x, x)


@njit
def products(rows, out, factor, width):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        x = load(rows, row, 0, width)
        store(out, row, 0, fma(x, factor, fma(x, sqrt(x), x)))


@njit
def difference(left, product, right, out, width):  # type: ignore[no-untyped-def]
    for row in range(left.shape[0]):
        store(out, row, 0, load(left, row, 0, width) * load(right, row, 0, width) - load(product, row, 0, width))


@njit
def exponentials(rows, out, width):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        store(out, row, 0, exp(load(rows, row, 0, width)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("size", "width"), [(1, 1), (3, 3), (12, 4), (66, 22), (64, 64)])
def test_arithmetic(dtype: type, size: int, width: int) -> None:
    rows = np.random.default_rng(0).uniform(0.5, 2, (7, size)).astype(dtype)
    out, factor = np.empty_like(rows), dtype(1.5)
    arithmetic(rows, out, factor, known(width))
    expected = np.where(rows > rows[0], (rows + rows[0]) * factor - rows * rows[0] / rows[:, :1], rows[0] - factor)
    np.testing.assert_allclose(out, expected, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)
    assert out.dtype == dtype


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [1, 3, 64])
def test_total(dtype: type, width: int) -> None:
    rows = np.random.default_rng(0).uniform(0.5, 2, (7, width)).astype(dtype)
    out = np.empty((7, 2), dtype)
    sums(rows, out, known(width))
    exact = rows.astype(np.float64)
    expected = np.stack([exact.sum(axis=1), (exact**2).sum(axis=1)], axis=1)
    np.testing.assert_allclose(out, expected, rtol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [1, 3, 64])
def test_products_and_roots(dtype: type, width: int) -> None:
    rows = np.random.default_rng(0).uniform(0.5, 2, (7, width)).astype(dtype)
    out = np.empty_like(rows)
    products(rows, out, dtype(0.7), known(width))
    np.testing.assert_allclose(out, rows * dtype(0.7) + rows * np.sqrt(rows) + rows, rtol=4 * np.finfo(dtype).eps)


def test_plain_operators_round_each_result() -> None:
    """A product that is rounded before it is subtracted from itself leaves nothing."""
    rows = np.random.default_rng(0).uniform(0.5, 2, (7, 8))
    out = np.empty_like(rows)
    difference(rows, rows * rows[:, ::-1], np.ascontiguousarray(rows[:, ::-1]), out, known(8))
    assert not out.any()


@pytest.mark.parametrize(("size", "itemsize", "width"), [(64, 4, 64), (64, 8, 32), (6, 8, 6), (66, 8, 22), (67, 8, 1)])
def test_the_width_divides_the_size_and_fits(
    monkeypatch: pytest.MonkeyPatch, size: int, itemsize: int, width: int
) -> None:
    monkeypatch.setattr(lanes, "BYTES_AT_ONCE", 256)
    assert width_of(size, itemsize) == width


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [1, 4, 6])
def test_exp_is_within_a_unit_in_the_last_place(dtype: type, width: int) -> None:
    lowest = -87 if dtype == np.float32 else -708
    rows = np.linspace(lowest, 88, 6 * 20_000).astype(dtype).reshape(-1, width)
    out = np.empty_like(rows)
    exponentials(rows, out, known(width))
    exact = np.exp(rows.astype(np.longdouble))
    assert float(np.abs(out / exact - 1).max()) < np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", TYPES)
def test_exp_of_what_is_no_number_or_far_away(dtype: type) -> None:
    rows = np.array([[np.nan, -np.inf, -1e30, 0.0, 1e4, np.inf]], dtype)
    out = np.empty_like(rows)
    exponentials(rows, out, known(6))
    np.testing.assert_array_equal(out, np.array([[np.nan, 0, 0, 1, np.inf, np.inf]], dtype))


def test_a_comparison_with_nan_chooses_the_other() -> None:
    rows = np.array([[1.0, 1.0], [np.nan, 2.0]])
    out = np.empty_like(rows)
    arithmetic(rows, out, 0.0, known(2))
    assert out[1, 0] == 1.0


@pytest.mark.parametrize("rows", [np.zeros((4, 4)).T[:, :2], np.zeros((4, 4))[:, ::2]])
def test_rows_that_are_not_contiguous_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(TypingError, match="C-contiguous"):
        exponentials(rows, np.zeros((4, 2)), known(2))


@njit
def mixed(rows, out, width):  # type: ignore[no-untyped-def]
    store(out, 0, 0, load(rows, 0, 0, width))


def test_lanes_of_another_type_are_refused() -> None:
    with pytest.raises(TypingError, match="their own type"):
        mixed(np.zeros((1, 4), np.float32), np.zeros((1, 4)), known(4))
    with pytest.raises(TypingError, match="floating-point"):
        mixed(np.zeros((1, 4), np.int64), np.zeros((1, 4)), known(4))
