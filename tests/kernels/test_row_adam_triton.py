"""The optimiser's kernel for GPUs against torch's SparseAdam in float64."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from triton_run import INTERPRETED, needs_triton, run_in_interpreter, triton_device

from dist_gat.optim.row_adam import MOMENTS, RowAdam

ROUNDING = {"rtol": 2e-6, "atol": 1e-7}


@pytest.fixture
def device() -> str:
    return triton_device()


def gradient(rows: list[int], num_rows: int, size: int, seed: int) -> torch.Tensor:
    values = torch.randn(len(rows), size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.int64), values, (num_rows, size))


def rows_of_steps(num_rows: int) -> list[list[int]]:
    """All rows in some order, one, none, and some twice, which are added first."""
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows)).tolist()
    return [order, order[:1], [], order[: num_rows // 2 + 1] + order[:1]]


@pytest.mark.parametrize(("num_rows", "size"), [(1, 1), (7, 5), (67, 64), (9, 100), (3, 1500)])
def test_updates_equal_those_of_sparse_adam(device: str, num_rows: int, size: int) -> None:
    from dist_gat.kernels.row_adam_triton import update_rows_gpu

    settings = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-6}
    exact = torch.nn.Parameter(torch.ones(num_rows, size, dtype=torch.float64))
    theirs = torch.optim.SparseAdam([exact], **settings)
    weight, mean, square = (value + torch.zeros(num_rows, size, device=device) for value in (1.0, 0.0, 0.0))
    for number, rows in enumerate(rows_of_steps(num_rows), start=1):
        exact.grad = gradient(rows, num_rows, size, number)
        theirs.step()
        merged = exact.grad.coalesce()
        rate = 0.03 * (1 - 0.95**number) ** 0.5 / (1 - 0.8**number)
        update_rows_gpu(
            weight, mean, square, merged.indices()[0].to(device), merged.values().float().to(device),
            1 - 0.8, 1 - 0.95, 1e-6, -rate,
        )  # fmt: skip
    state = theirs.state[exact]
    for ours, other in ((weight, exact), *zip((mean, square), map(state.get, MOMENTS), strict=True)):
        assert_close(ours.cpu().double(), other.detach(), **ROUNDING)


@pytest.mark.skipif(INTERPRETED, reason="optimisers choose the kernel by the device")
def test_the_optimiser_on_a_gpu(device: str) -> None:
    """Its whole step, and moments of another optimiser that lie otherwise."""
    num_rows, size = 5000, 64
    exact = torch.nn.Parameter(torch.ones(num_rows, size, dtype=torch.float64))
    weight = torch.nn.Parameter(torch.ones(num_rows, size, device=device))
    ours, theirs = RowAdam([weight], lr=0.03), torch.optim.SparseAdam([exact], lr=0.03)
    ours.state[weight] = {
        "step": 0,
        **{name: torch.zeros(size, num_rows, device=device).T for name in MOMENTS},
    }
    for number, rows in enumerate(rows_of_steps(num_rows)):
        exact.grad = gradient(rows, num_rows, size, number)
        weight.grad = exact.grad.to(device, torch.float32)
        ours.step()
        theirs.step()
        assert ours.state[weight]["step"] == theirs.state[exact]["step"] == number + 1
    assert_close(weight.detach().cpu().double(), exact.detach(), **ROUNDING)
    # as the kernel wants them; torch's own step would have left them as they were
    assert all(ours.state[weight][name].is_contiguous() for name in MOMENTS)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
def test_all_of_this_in_the_interpreter() -> None:
    run_in_interpreter(__file__)
