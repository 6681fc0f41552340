from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dist_gat.kernels.copy_rows import ROWS_PER_TASK, add_rows, copy_rows, put_rows, take_rows


@given(st.data(), st.sampled_from([(), (1,), (3,), (2, 20)]), st.sampled_from([np.int64, np.float32]))
def test_it_is_the_numpy_expression(data: st.DataObject, row_shape: tuple[int, ...], dtype: type) -> None:
    num_rows, num_places = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    source = np.arange(num_rows * int(np.prod(row_shape))).reshape(num_rows, *row_shape).astype(dtype)
    count = data.draw(st.integers(0, num_places if num_rows else 0))
    rows = data.draw(arrays(np.int64, count, elements=st.integers(0, max(num_rows - 1, 0))))
    places = np.array(data.draw(st.permutations(range(num_places)))[:count], dtype=np.int64)
    target = np.full((num_places, *row_shape), -1, dtype)
    expected = target.copy()
    expected[places] = source[rows]
    source.flags.writeable = False
    copy_rows(source, rows, target, places)
    np.testing.assert_array_equal(target, expected)


@given(st.data(), st.integers(1, 30), st.integers(0, 30), st.sampled_from([0, 1, 3, 64]))
def test_rows_are_taken_in_order(data: st.DataObject, num_rows: int, count: int, size: int) -> None:
    source = np.arange(num_rows * size, dtype=np.float32).reshape(num_rows, size)
    rows = data.draw(arrays(np.int64, count, elements=st.integers(0, num_rows - 1)))
    target = np.full((count, size), -1, np.float32)
    take_rows(source, rows, target)
    np.testing.assert_array_equal(target, source[rows])


@pytest.mark.parametrize("row", [-1, 3])
def test_rows_are_not_taken_from_outside(row: int) -> None:
    target = np.zeros((2, 4))
    with pytest.raises(AssertionError, match="outside"):
        take_rows(np.ones((3, 4)), np.array([row, 0]), target)
    with pytest.raises(AssertionError, match="as many rows"):
        take_rows(np.ones((3, 4)), np.array([0]), target)
    with pytest.raises(AssertionError, match="different kinds"):
        take_rows(np.ones((3, 4), np.float32), np.array([0, 0]), target)
    assert not target.any()


def test_narrow_numbers_widen_and_wide_ones_are_refused() -> None:
    target, one = np.zeros((2, 2), np.int64), np.array([1])
    copy_rows(np.array([[7, -7]], np.int32), np.array([0]), target, one)
    assert target.tolist() == [[0, 0], [7, -7]]
    with pytest.raises(AssertionError, match="different kinds"):
        copy_rows(target, one, np.zeros((2, 2), np.int32), one)
    with pytest.raises(AssertionError, match="different kinds"):
        copy_rows(target, one, np.zeros((2, 2), np.float64), one)


@pytest.mark.parametrize(("row", "place"), [(-1, 0), (3, 0), (0, -1), (0, 2)])
def test_rows_outside_of_an_array_are_refused(row: int, place: int) -> None:
    target = np.zeros((2, 4))
    with pytest.raises(AssertionError, match="outside"):
        copy_rows(np.ones((3, 4)), np.array([row]), target, np.array([place]))
    assert not target.any()


@pytest.mark.parametrize("num_rows", [0, 1, 2 * ROWS_PER_TASK + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_put_rows_is_an_assignment(num_rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(50, 6, generator=generator).to(dtype), torch.zeros(num_rows + 5, 6, dtype=dtype)
    rows = torch.randint(50, (num_rows,), generator=generator)
    places = torch.randperm(num_rows + 5, generator=generator)[:num_rows]
    expected = target.clone()
    expected[places] = source[rows]
    put_rows(source, rows, target, places)
    assert torch.equal(target, expected)


@pytest.mark.parametrize("num_rows", [0, 1, 2 * ROWS_PER_TASK + 3])
@pytest.mark.parametrize("size", [0, 1, 6, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_add_rows_is_an_addition(num_rows: int, size: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(n, size, generator=generator).to(dtype) for n in (num_rows, num_rows + 5))
    places = torch.randperm(num_rows + 5, generator=generator)[:num_rows]
    expected = target.clone()
    expected[places] += source
    add_rows(source, target, places)
    assert torch.equal(target, expected)


@pytest.mark.parametrize("places", [[0, 2], [-1, 0], [0]])
def test_additions_outside_of_an_array_are_refused(places: list[int]) -> None:
    target = torch.zeros(2, 4)
    with pytest.raises(AssertionError, match="outside|as many"):
        add_rows(torch.ones(2, 4), target, torch.tensor(places))
    assert not target.any()
