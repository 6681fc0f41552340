"""The loss of columns against torch's own losses, column by column and node by node."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from dist_gat.data.column_layout import Column, laid_out
from dist_gat.nn.column_decoder import ColumnDecoder

LAYOUT = laid_out([
    Column("known", "known", 1, 3), Column("year", "numeric", 1, 2),
    Column("maker", "category", 1, 2, num_categories=4), Column("items", "categories", 3, 2, num_categories=5),
    Column("picture", "vector", 2, 2),
])  # fmt: skip
NUMBERS = [[1, 0.5], [0, math.nan], [1, math.nan]]
CODES = [[3, 0, 4, -1], [0, 1, -1, -1], [-1, -1, -1, -1]]
VECTORS = [[0.25, -2], [math.nan, math.nan], [math.nan, math.nan]]


def stored() -> torch.Tensor:
    columns = [np.array(NUMBERS, np.float32), np.array(CODES, np.int32).view(np.float32), np.array(VECTORS, np.float32)]
    return torch.from_numpy(np.concatenate(columns, axis=1))


def test_the_loss_of_a_node_is_the_mean_over_the_columns_that_it_has() -> None:
    torch.manual_seed(0)
    decoder = ColumnDecoder(LAYOUT, 6)
    rows = torch.randn(3, 6, requires_grad=True)
    found = decoder(rows, stored())
    year, maker, items, picture = (decode(rows) for decode in decoder.maps.values())
    of_first = [
        (year[0, 0] - 0.5) ** 2,
        functional.cross_entropy(maker[0], torch.tensor(3)),
        functional.cross_entropy(items[0].expand(2, 5), torch.tensor([0, 4])),
        (1 - functional.cosine_similarity(picture[0], torch.tensor([0.25, -2.0]), dim=0)) ** 2,
    ]
    codes = (maker[1], 0), (items[1], 1)
    of_second = [functional.cross_entropy(logits, torch.tensor(code)) for logits, code in codes]
    assert found[0].item() == pytest.approx(sum(of_first).item() / 4, rel=1e-5)
    assert found[1].item() == pytest.approx(sum(of_second).item() / 2, rel=1e-5)
    assert found[2].item() == 0
    found.sum().backward()
    gradients = [parameter.grad for parameter in decoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in [*gradients, rows.grad])
    assert rows.grad is not None
    assert not rows.grad[2].any()


def test_of_no_node_there_is_a_gradient_too() -> None:
    """As DDP expects of each rank."""
    decoder = ColumnDecoder(LAYOUT, 6)
    decoder(torch.zeros(0, 6), stored()[:0]).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())
