"""Noise on every row of an item and on every dense weight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dist_gat.optim.gaussian_noise import GaussianNoise, runs_of

SIZE = 6


def model_of(num_rows: int) -> Any:
    return SimpleNamespace(
        table=SimpleNamespace(weight=nn.Parameter(torch.zeros(num_rows, SIZE, dtype=torch.float64))),
        dense=nn.Linear(300, 40, dtype=torch.float64),
    )


def applied(first_node: int, rows: np.ndarray, num_rows: int, step: int = 3) -> Any:
    model = model_of(num_rows)
    model.table.weight.grad = torch.sparse_coo_tensor(
        torch.tensor([[rows[0], rows[-1], 0]]), torch.full((3, SIZE), 100.0, dtype=torch.float64), (num_rows, SIZE)
    )
    model.dense.weight.grad = torch.full_like(model.dense.weight, 7.0)
    GaussianNoise(0.5, first_node, rows, bytes(32)).apply(model, 0.0, step)
    return model


def test_rows_of_items_and_dense_weights_get_noise_and_others_lose_their_gradient() -> None:
    rows = np.r_[2:1500, 2000:4000]
    model = applied(50, rows, 5000)
    gradient = model.table.weight.grad.coalesce()
    assert gradient.indices()[0].tolist() == rows.tolist()
    values = gradient.values().numpy()
    assert (values[[0, -1]] > 90).all()
    assert values[1:-1].std() == pytest.approx(0.5, rel=0.02)
    assert abs(values[1:-1].mean()) < 0.01
    dense = torch.cat([model.dense.weight.grad.flatten() - 7, model.dense.bias.grad]).numpy()
    assert dense.std() == pytest.approx(0.5, rel=0.03)
    assert len(np.unique(np.concatenate([values[1:-1].ravel(), dense]))) == values[1:-1].size + dense.size


def test_ranks_add_the_noise_of_their_own_rows_and_the_same_to_dense_weights() -> None:
    whole = applied(0, np.arange(5, 100), 100)
    ours = [applied(0, np.arange(5, 40), 40), applied(40, np.arange(60), 60)]
    found = torch.cat([model.table.weight.grad.to_dense() for model in ours])
    assert torch.equal(found[6:39], whole.table.weight.grad.to_dense()[6:39])
    assert torch.equal(found[41:99], whole.table.weight.grad.to_dense()[41:99])
    assert all(torch.equal(model.dense.bias.grad, whole.dense.bias.grad) for model in ours)
    other = applied(0, np.arange(5, 100), 100, step=4)
    assert not torch.isclose(other.dense.bias.grad, whole.dense.bias.grad).any()


def test_runs_of_consecutive_rows() -> None:
    assert runs_of(np.array([0, 1, 2, 5, 9, 10])) == [(0, 3), (5, 1), (9, 2)]
    assert runs_of(np.zeros(0, np.int64)) == []
