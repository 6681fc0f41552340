"""What a rank says when another one is missing, and how a shared folder comes to be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import Ranks

from dist_gat.base.errors import ClusterError
from dist_gat.base.storage import read_manifest
from dist_gat.exchange import channel as channel_module
from dist_gat.exchange.channel import open_channel
from dist_gat.exchange.route import route_to
from dist_gat.exchange.shared_folder import shared_folder
from dist_gat.exchange.worker import join_workers

CPU = torch.device("cpu")


def miss_rank_1(operation: str, stays: bool, bell: Path) -> str:
    """The others issue a collective that rank 1 does not, and return what its error says.

    Rank 1 leaves at once, as after a crash, or hangs until the others have their error.
    """
    channel_module.ROLL_CALL_S = 1
    channel = join_workers(CPU, 1, timeout_s=1).rows
    rank, world_size = channel.rank, channel.world_size
    if rank == 1:
        if stays:
            bell.read_text()  # of a FIFO: blocks until somebody writes
        return ""
    with pytest.raises(ClusterError) as caught:
        if operation == "all_reduce":
            channel.sum(torch.ones(2))
        elif operation == "all_to_all of counts":
            route_to(torch.arange(world_size), channel)
        else:
            channel.all_to_all(torch.ones(world_size, 2), [1] * world_size, [1] * world_size)
    if stays and rank == 0:
        bell.write_text("")
    return str(caught.value)


@pytest.mark.parametrize("stays", [True, False], ids=["hangs", "left"])
@pytest.mark.parametrize("operation", ["all_reduce", "all_to_all of counts", "all_to_all"])
def test_the_error_of_a_collective_names_its_place_and_the_missing_rank(
    ranks: Ranks, operation: str, stays: bool, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "bell")
    message, *_ = ranks.run(2, miss_rank_1, operation, stays, tmp_path / "bell", timeout_s=10)
    for text in (f"rank 0 of 2: {operation} on channel 'rows' failed", "launch.timeout_s", "log"):
        assert text in message
    assert "rank 1 does not answer" in message


def join_without_rank_1() -> str:
    if dist.get_rank() == 1:
        return ""
    with pytest.raises(ClusterError) as caught:
        join_workers(CPU, 1, timeout_s=1)
    return str(caught.value)


def test_a_rank_that_never_joins_is_an_error_too(ranks: Ranks) -> None:
    message, _ = ranks.run(2, join_without_rank_1, timeout_s=10)
    for text in ("rank 0 of 2", "launch.timeout_s"):
        assert text in message


def join(world_size: int) -> list[object]:
    worker = join_workers(CPU, 1, 30)
    channels = [worker.rows, worker.sampling, worker.control]
    assert [channel.name for channel in channels] == ["rows", "sampling", "control"]
    assert len({id(channel.group) for channel in channels}) == (3 if world_size > 1 else 1)
    assert torch.get_num_threads() == 1
    for channel in channels:
        assert channel.sum(torch.ones(1)).item() == world_size
    return [worker.rank, worker.world_size]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_worker_has_a_channel_for_each_stream(ranks: Ranks, world_size: int) -> None:
    assert ranks.run(world_size, join, world_size) == [[rank, world_size] for rank in range(world_size)]


def write_together(target: Path) -> None:
    channel = open_channel("control", CPU, 30, None)
    with shared_folder(target, channel, "kind", 1, {"count": 3}) as folder:
        assert folder.is_relative_to(target.parent)
        assert not folder.is_relative_to(target)
        (folder / f"{channel.rank}").write_text("x" * (channel.rank + 1))
        channel.barrier()
        assert (target / "old").exists()
    assert not (target / "old").exists()
    manifest = read_manifest(target, "kind", 1, "")
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {"0": 1, "1": 2}


def test_ranks_write_one_folder_that_appears_whole(ranks: Ranks, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("x")
    ranks.run(2, write_together, target)
    assert json.loads((target / "manifest.json").read_text())["count"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
