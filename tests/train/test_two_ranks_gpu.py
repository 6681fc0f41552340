"""Two ranks whose rows are on a GPU: through NCCL on two GPUs, through gloo on one, and the same code on the CPU.

NCCL takes no two ranks on one GPU, so there gloo carries the GPU's tensors. What only moves has the bits of the CPU;
losses, whose sums a GPU takes in another order, agree in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import recipes
import torch
import torch.distributed as dist
from helpers import Ranks, same_on_all
from recipes import COSINE

from dist_gat.api import prepare, train
from dist_gat.config.sections import Config
from dist_gat.data.synthetic import write_synthetic
from dist_gat.exchange.channel import open_channel
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.training import train_worker
from dist_gat.launcher.local import run_processes

STEPS = 12
BASE: dict[str, Any] = {
    "sampling": {"fanouts": [4, 3], "access": "exchange"},
    "negatives": {"num_shared": 30, "num_per_seed": 2, "in_batch": True},
    "model": {"scoring": "dot", "num_heads": 2, "decoder": COSINE},
    "train": {"num_epochs": 3, "max_steps": STEPS, "batch_size": 200, "precision": "float64"},
    "launch": {"num_workers": 2},
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=needs_gpu)])


def recipe(folder: Path, run: str, **sections: dict[str, Any]) -> Config:
    return recipes.recipe(folder, run, BASE, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_synthetic(folder / "raw", 120, 80, 4, 10, 0.1, seed=3)
    prepare(recipe(folder, "none"))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[float]:
    """Losses of one process on the CPU."""
    losses = train(recipe(folder, "alone", launch={"num_workers": 1}))["losses"]
    assert len(losses) == STEPS
    return losses


def through_gloo() -> Any:
    """While the block runs, channels are gloo's whatever device they are of."""
    of_torch = dist.new_group

    def new_group(backend: str, **more: Any) -> Any:
        assert backend in ("gloo", "nccl")
        return of_torch(backend="gloo", **more)

    return mock.patch.object(dist, "new_group", new_group)


def move_rows(device: str) -> list[np.ndarray]:
    """What this rank gets of the other, and sums over both."""
    with through_gloo():
        channel = open_channel("rows", torch.device(device), 30)
    generator = torch.Generator().manual_seed(channel.rank)
    rows_SE = torch.randn(7, 5, generator=generator).to(device)
    counts = torch.tensor([[3, 4], [2, 5]])
    send, receive = counts[channel.rank].tolist(), counts[:, channel.rank].tolist()
    assert channel.all_to_all_counts(counts[channel.rank]) == receive
    there = channel.all_to_all(rows_SE, send, receive)
    room = channel.room(7, rows_SE).copy_(rows_SE)
    started = channel.start_rows(room, send, receive)()
    back = channel.all_to_all(there, receive, send)
    total = channel.sum(rows_SE)
    assert {one.device for one in (there, back, total, *started)} == {torch.device(device)}
    assert torch.equal(back, rows_SE)
    return [one.cpu().numpy() for one in (there, torch.cat(started), total)]


def train_two(config: Config, device: str) -> list[float]:
    with through_gloo():
        worker = join_workers(torch.device(device), 1, 60, shares_memory=False)
        return train_worker(config, worker)["losses"]


@on_each_device
def test_rows_that_move_have_the_bits_of_the_cpu(ranks: Ranks, device: str) -> None:
    every = [torch.randn(7, 5, generator=torch.Generator().manual_seed(rank)).numpy() for rank in range(2)]
    first, second = ranks.run(2, move_rows, device)
    np.testing.assert_array_equal(first[0], np.concatenate([every[0][:3], every[1][:2]]))
    np.testing.assert_array_equal(second[0], np.concatenate([every[0][3:], every[1][2:]]))
    for found in (first, second):
        np.testing.assert_array_equal(found[1], found[0])
        np.testing.assert_array_equal(found[2], every[0] + every[1])


@on_each_device
def test_two_ranks_through_gloo_have_the_losses_of_one_process(
    ranks: Ranks, folder: Path, expected: list[float], device: str
) -> None:
    config = recipe(folder, device.partition(":")[0], launch={"use_gpu": device != "cpu"})
    assert same_on_all(ranks.run(2, train_two, config, device, timeout_s=240)) == pytest.approx(expected, rel=1e-9)


@needs_two
def test_two_gpus_through_nccl_have_the_losses_of_one_process(folder: Path, expected: list[float]) -> None:
    found = run_processes(train_worker, recipe(folder, "nccl", launch={"use_gpu": True}))
    assert found["losses"] == pytest.approx(expected, rel=1e-9)
