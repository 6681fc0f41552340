"""Lanes against numpy: whole vectors, halves, and ends of rows of any width."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core.errors import NumbaError
from numpy.testing import assert_allclose, assert_array_equal

from dist_gat.nn.lanes import WIDTH, choose, divide, exp, fill, fma, lane, load, prefetch, repeat, store, totals

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@njit(nogil=True)
def copy(x, out, row, column, width):  # type: ignore[no-untyped-def]
    prefetch(x, row, column)
    store(out, row, column, width, load(x, row, column, width))


@njit(nogil=True)
def lanes_past_the_end(x, out, width):  # type: ignore[no-untyped-def]
    store(out, 0, 0, WIDTH, load(x, 0, 0, width))


@njit(nogil=True)
def exponentials(x, out):  # type: ignore[no-untyped-def]
    for i in range(0, x.shape[1], WIDTH):
        width = min(WIDTH, x.shape[1] - i)
        store(out, 0, i, width, exp(load(x, 0, i, width)))


@njit(nogil=True)
def arithmetic(x, out):  # type: ignore[no-untyped-def]
    a, b, c, d = load(x, 0, 0, WIDTH), load(x, 1, 0, WIDTH), load(x, 2, 0, WIDTH), load(x, 3, 0, WIDTH)
    store(out, 0, 0, 4, totals(a, b, c, d))
    store(out, 1, 0, WIDTH, fma(a, repeat(x, 3, 2), b))
    store(out, 2, 0, WIDTH, divide(a, b))
    store(out, 3, 0, WIDTH, choose(a, b, c, d))
    store(out, 4, 0, WIDTH, fill(lane(b, 5)))


@TYPES
@pytest.mark.parametrize("width", range(WIDTH + 1))
def test_loads_and_stores_stay_inside_their_width(dtype, width):
    x = np.arange(1, 3 * WIDTH + 1, dtype=dtype).reshape(3, WIDTH)
    out = np.full((3, WIDTH + 3), -1, dtype=dtype)
    expected = out.copy()
    wide = np.zeros_like(out)
    wide[:, :WIDTH] = x
    expected[1, 2 : 2 + width] = wide[1, 2 : 2 + width]
    copy(wide, out, 1, 2, width)
    assert_array_equal(out, expected)
    lanes_past_the_end(x, out[:1], width)
    assert_array_equal(out[0, :WIDTH], np.where(np.arange(WIDTH) < width, x[0], 0))


@TYPES
def test_exp(dtype):
    limits = np.finfo(dtype)
    lowest = float(np.log(limits.tiny)) + 1
    x = np.concatenate([np.linspace(lowest, 0, 2001), np.linspace(-1, 80, 2001)]).astype(dtype)[None]
    out = np.empty_like(x)
    exponentials(x, out)
    assert_allclose(out, np.exp(x.astype(np.longdouble)), rtol=limits.eps)
    x = np.array([[0, np.nan, -np.inf, -1e30]], dtype=dtype)
    out = np.empty_like(x)
    exponentials(x, out)
    assert_allclose(out, [[1, np.nan, 0, 0]], atol=4 * limits.tiny)


@TYPES
def test_arithmetic(dtype):
    x = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(dtype)
    x[0, 3] = np.nan
    out = np.zeros((5, WIDTH), dtype=dtype)
    arithmetic(x, out)
    tolerance = {"rtol": 8 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}
    assert_allclose(out[0, :4], x.sum(axis=1), **tolerance)
    assert_allclose(out[1], x[0] * x[3, 2] + x[1], **tolerance)
    assert_allclose(out[2], x[0] / x[1], **tolerance)
    assert_array_equal(out[3], np.where(x[0] < x[1], x[2], x[3]))
    assert_array_equal(out[4], np.full(WIDTH, x[1, 5]))


def test_only_contiguous_arrays_are_taken():
    x = np.zeros((4, 2 * WIDTH), dtype=np.float32)
    with pytest.raises((AssertionError, NumbaError), match="contiguous"):
        lanes_past_the_end(x[:, ::2], x, WIDTH)
