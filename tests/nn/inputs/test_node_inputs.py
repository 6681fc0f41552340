"""What is known of a node, added up; every type's parameters are reached, whoever is in the sample."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dist_gat.nn.inputs.node_inputs import NodeInputs


def test_rows_are_the_ids_plus_projected_columns() -> None:
    inputs = NodeInputs({"user": 2, "item": 3}, 6).double()
    embedding_SE = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 3, dtype=torch.float64)
    features = {
        "user": (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.float64)),
        "item": (torch.tensor([4, 1]), values),
    }
    rows_SE = inputs(embedding_SE, features)
    expected_SE = embedding_SE.detach().clone()
    weight = dict(inputs.named_parameters())["encoders.item.project.weight"]
    expected_SE[4] += weight @ values[0]
    expected_SE[1] += weight @ values[1]
    assert_close(rows_SE, expected_SE)
    rows_SE.sum().backward()
    assert_close(embedding_SE.grad, torch.ones_like(embedding_SE))
    assert all(p.grad is not None for p in inputs.parameters())  # DDP: also without users here
    with pytest.raises(AssertionError):
        inputs(embedding_SE, {"item": features["item"]})
