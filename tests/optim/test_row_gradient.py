"""Merging and squaring sparse gradients against plain torch."""

from __future__ import annotations

import pytest
import torch

from dist_gat.optim.row_gradient import ROWS_PER_SUM, merge_rows, square_sum


@pytest.mark.parametrize("rows", [[], [2], [4, 1, 3], [1, 4, 1], [129, 64, 63, 0, 65], [64, 129, 64], list(range(130))])
def test_merged_rows_are_distinct_and_sum_to_the_same(rows: list[int]) -> None:
    values = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    indices = torch.tensor([rows], dtype=torch.int64)
    gradient = torch.sparse_coo_tensor(indices, values, (130, 3), check_invariants=True)
    merged = merge_rows(gradient)
    assert merged.is_coalesced()
    assert sorted(merged.indices()[0].tolist()) == sorted(set(rows))
    assert torch.equal(merged.to_dense(), gradient.to_dense())
    if len(set(rows)) == len(rows):
        assert merged.values().data_ptr() == gradient._values().data_ptr(), "the values are not copied"


@pytest.mark.parametrize("num_rows", [0, 1, ROWS_PER_SUM, 2 * ROWS_PER_SUM + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_square_sum(num_rows: int, dtype: torch.dtype) -> None:
    values = torch.randn(num_rows, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = square_sum(values)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, values.double().square().sum(), rtol=1e-12, atol=0)


def test_the_square_sum_of_a_gradient_that_is_no_number_is_none() -> None:
    assert torch.isnan(square_sum(torch.tensor([[1.0, float("nan")]])))
    assert torch.isinf(square_sum(torch.tensor([[1.0, float("inf")]])))


def test_the_square_sum_has_the_same_bits_on_any_number_of_threads() -> None:
    values = torch.randn(5 * ROWS_PER_SUM, 7, generator=torch.Generator().manual_seed(1))
    before, sums = torch.get_num_threads(), set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        sums.add(float(square_sum(values)))
    torch.set_num_threads(before)
    assert len(sums) == 1
