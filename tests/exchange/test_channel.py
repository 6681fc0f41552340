"""What a rank says when another one is missing, and how a shared folder comes to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import Ranks

from dist_gat.errors import ClusterError
from dist_gat.exchange import channel as channel_module
from dist_gat.exchange.channel import open_channel
from dist_gat.exchange.route import route_to
from dist_gat.exchange.shared_folder import shared_folder
from dist_gat.exchange.worker import join_workers
from dist_gat.storage import read_manifest

CPU = torch.device("cpu")


def wait_for_a_rank_that_left(operation: str, world_size: int) -> str:
    """Rank 1 joins and leaves; the others issue a collective and return what its error says."""
    channel_module.ROLL_CALL_S = 1
    channel = join_workers(CPU, 1, timeout_s=1).rows
    if channel.rank == 1:
        return ""
    with pytest.raises(ClusterError) as caught:
        if operation == "sum":
            channel.sum(torch.ones(2))
        elif operation == "counts":
            route_to(torch.arange(world_size), channel)
        else:
            channel.all_to_all(torch.ones(world_size, 2), [1] * world_size, [1] * world_size)
    return str(caught.value)


@pytest.mark.parametrize(
    ("operation", "world_size", "named"),
    [("sum", 4, "all_reduce"), ("counts", 2, "all_to_all of counts"), ("rows", 2, "all_to_all")],
)
def test_the_error_of_a_collective_names_its_place_and_the_missing_rank(
    ranks: Ranks, operation: str, world_size: int, named: str
) -> None:
    messages = ranks.run(world_size, wait_for_a_rank_that_left, operation, world_size, timeout_s=20)
    for rank, message in enumerate(messages):
        if rank != 1:
            for text in (f"rank {rank} of {world_size}: {named} on channel 'rows' failed", "launch.timeout_s", "log"):
                assert text in message
    assert "rank 1 does not answer" in messages[0]


def join_without_rank_1() -> str:
    if dist.get_rank() == 1:
        return ""
    with pytest.raises(ClusterError) as caught:
        join_workers(CPU, 1, timeout_s=1)
    return str(caught.value)


def test_a_rank_that_never_joins_is_an_error_too(ranks: Ranks) -> None:
    message, _ = ranks.run(2, join_without_rank_1, timeout_s=1)
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
        assert folder.parent == target.parent
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
