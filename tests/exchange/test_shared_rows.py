"""Rows through memory that the ranks of a host map: what arrives, how long it stays, and where there is none."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Ranks

from dist_gat.exchange import channel as channel_module
from dist_gat.exchange import shared_rows
from dist_gat.exchange.channel import Channel, open_channel, share_memory
from dist_gat.exchange.shared_rows import Handle, map_memory, new_memory
from dist_gat.exchange.worker import join_workers

CPU = torch.device("cpu")
EXCHANGES = 7


def counts_of(number: int, world_size: int) -> np.ndarray:
    """int64 [W, W]: how many rows each rank sends to each, in an exchange; some send nothing."""
    return np.random.default_rng(number).integers(0, 5, (world_size, world_size)) * (number != 3)


def rows_of(number: int, sender: int, num_rows: int, like: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * number + sender)
    return torch.randn(num_rows, like.shape[1], generator=generator, dtype=torch.float64).to(like.dtype)


def exchange_all(shares: bool) -> list[list[torch.Tensor]]:
    """What this rank receives in exchanges of several sizes and types, one after the other."""
    channel = open_channel("rows", CPU, 30)
    if shares:
        share_memory(channel)
        assert channel.shared is not None
    found: list[list[torch.Tensor]] = []
    for number in range(EXCHANGES):
        like = torch.empty(0, 1 + number % 3, dtype=(torch.float32, torch.float64, torch.bfloat16)[number % 3])
        counts = counts_of(number, channel.world_size)
        send, receive = counts[channel.rank].tolist(), counts[:, channel.rank].tolist()
        room = channel.room(sum(send), like)
        room.copy_(rows_of(number, channel.rank, sum(send), like))
        wait = channel.start_rows(room, send, receive)
        found.append([rows.clone() for rows in wait()])
        rows = rows_of(number, channel.rank, sum(send), like)
        assert torch.equal(channel.all_to_all(rows, send, receive), torch.cat(found[-1]))
        flat = rows[:, 0].contiguous()
        assert torch.equal(channel.all_to_all(flat, send, receive), torch.cat(found[-1])[:, 0])
    return found


def keep_two() -> bool:
    """Whether rows that were received are still there when the next exchange is over."""
    channel = open_channel("rows", CPU, 30)
    share_memory(channel)
    like, counts = torch.empty(0, 2), [3] * channel.world_size
    received = []
    for number in range(2):
        room = channel.room(sum(counts), like)
        room.fill_(10 * number + channel.rank)
        received.append(channel.start_rows(room, counts, counts)())
    return all((rows == 10 * k + rank).all() for k, found in enumerate(received) for rank, rows in enumerate(found))


def test_rows_stay_while_the_next_exchange_is_under_way(ranks: Ranks) -> None:
    assert ranks.run(2, keep_two) == [True, True]


@pytest.mark.parametrize("world_size", [2, 3])
def test_memory_and_sockets_bring_the_same_rows(ranks: Ranks, world_size: int) -> None:
    through_memory, through_sockets = (ranks.run(world_size, exchange_all, shares) for shares in (True, False))
    for rank in range(world_size):
        for number in range(EXCHANGES):
            counts = counts_of(number, world_size)
            for sender in range(world_size):
                rows = through_memory[rank][number][sender]
                sent = rows_of(number, sender, int(counts[sender].sum()), rows)
                first = int(counts[sender, :rank].sum())
                assert torch.equal(rows, sent[first : first + int(counts[sender, rank])])
                assert torch.equal(rows, through_sockets[rank][number][sender])


def refused_on_rank_1(what: str) -> list[torch.Tensor]:
    """Rank 1 has no memory of its own, or can't see that of another."""
    channel = open_channel("rows", CPU, 30)
    files = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        if channel.rank == 1:
            patch.setattr(channel_module, what, lambda *_: None)
        share_memory(channel)
    assert channel.shared is None
    assert len(os.listdir("/proc/self/fd")) == files
    room = channel.room(2, torch.empty(0, 3))
    room.fill_(channel.rank)
    return channel.start_rows(room, [1, 1], [1, 1])()


@pytest.mark.parametrize("what", ["new_memory", "map_memory"])
def test_where_one_rank_can_not_all_use_sockets(ranks: Ranks, what: str) -> None:
    for received in ranks.run(2, refused_on_rank_1, what):
        assert torch.equal(torch.cat(received), torch.tensor([[0.0] * 3, [1.0] * 3]))


def mappings() -> tuple[bool, int, int]:
    """Whether a worker shares the memory of rows, and how many mappings there are with it and after it."""
    gc.collect()  # what the tests before in this process left
    worker = join_workers(CPU, 1, 30)
    shares = worker.rows.shared is not None
    mapped = Path("/proc/self/maps").read_text().count("memfd:dist_gat rows")
    worker.rows.shared = None
    gc.collect()
    return shares, mapped, Path("/proc/self/maps").read_text().count("memfd:dist_gat rows")


def test_a_worker_shares_and_nothing_is_left(ranks: Ranks) -> None:
    assert ranks.run(2, mappings) == [(True, 2, 0)] * 2


def test_memory_is_told_by_its_token_and_not_by_its_number() -> None:
    made = new_memory()
    assert made is not None
    file, handle = made
    assert map_memory(handle) is not None
    assert map_memory(Handle(handle.process, handle.file, b"\0" * shared_rows.TOKEN_BYTES)) is None
    os.close(file)
    assert map_memory(handle) is None


def test_one_rank_and_gpus_and_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    of_gpus = Channel("rows", world_size=2, group=object(), device=torch.device("cuda"))  # type: ignore[arg-type]
    channel = Channel("rows")
    for each in (channel, of_gpus):
        share_memory(each)
        assert each.shared is None
    room = channel.room(2, torch.ones(0, 3))
    room.fill_(5)
    assert torch.equal(channel.start_rows(room, [2], [2])()[0], torch.full((2, 3), 5.0))
    monkeypatch.delattr(os, "memfd_create")
    assert new_memory() is None


def test_more_than_a_half_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = new_memory()
    assert made is not None
    memory = map_memory(made[1])
    os.close(made[0])
    assert memory is not None
    monkeypatch.setattr(shared_rows, "HALF_BYTES", 100)
    with pytest.raises(AssertionError, match="room"):
        shared_rows.SharedRows([memory], 0).room(9, torch.empty(0, 3))
