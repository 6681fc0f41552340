"""Attention by degree: the entropy that training logs, row by row, and buckets that hold what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import adjacency

from dist_gat.explain.attention_by_degree import attention_by_degree, row_entropy
from dist_gat.explain.trained_run import open_trained_run
from dist_gat.nn.attention import attention_entropy
from dist_gat.sampling.block import Block


def test_row_entropy_is_the_entropy_of_a_block() -> None:
    count = np.array([3, 1, 0, 4, 2])
    generator = torch.Generator().manual_seed(0)
    alpha_DFH = torch.rand(5, 4, 2, generator=generator)
    alpha_DFH[3, 0] = -0.1
    block = Block(torch.zeros(5, 4, dtype=torch.long), torch.from_numpy(count), 5)
    alpha_DFH *= block.mask_DF()[:, :, None]
    found = row_entropy(alpha_DFH[block.mask_DF()], np.append(0, np.cumsum(count)))
    assert found.isnan().tolist() == [False, True, True, False, False]
    assert float(found[[0, 3, 4]].mean()) == pytest.approx(float(attention_entropy(alpha_DFH, block)), abs=1e-6)
    even = row_entropy(torch.full((4, 1), 0.25), np.array([0, 4]))
    peak = row_entropy(torch.tensor([[0.0], [1.0]]), np.array([0, 2]))
    assert (float(even), float(peak)) == pytest.approx((1.0, 0.0))


def test_every_sampled_node_is_in_the_bucket_of_its_degree(small_run: Path) -> None:
    run = open_trained_run(small_run / "run")
    degree = adjacency(run.store.prepared).sum(axis=1)
    rows = attention_by_degree(run, max_nodes=10**6)
    assert {row["layer"] for row in rows} == {1, 2}
    for row in rows:
        inside = (degree >= row["first_degree"]) & (degree <= row["last_degree"])
        assert row["nodes"] == inside.sum()
        assert 0 < row["entropy"] <= 1
    assert sum(row["nodes"] for row in rows) == 2 * (degree >= 2).sum()
    some = attention_by_degree(run, max_nodes=40)
    assert sum(row["nodes"] for row in some) <= 2 * 40
    assert attention_by_degree(run, max_nodes=40) == some
