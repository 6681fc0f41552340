"""Keys to their owners on one, two and four gloo processes: what comes, in which order, in how many messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import Ranks
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.exchange.channel import Channel, open_channel
from dist_gat.exchange.keys import FEW, HEADER, _room_for, send_keys

# keys of rank 0, the others have a few more: a first time, as before, a little more, much more, few, none, again
SIZES = (400, 400, 430, 900, 90, 0, 0, 100)
# a second message where some rank has more than last time and an eighth, or 16
MESSAGES = (2, 1, 1, 2, 1, 1, 1, 2)


def keys_of(time: int, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of a rank and their owners; the last of four owns none."""
    count = SIZES[time] + rank * (SIZES[time] > 0)
    keys = np.random.default_rng([time, rank]).permutation(1000)[:count].astype(np.int64)
    return keys, np.sort(np.arange(count) % min(world_size, 3))


def counts_of(owner: np.ndarray, world_size: int) -> list[int]:
    return np.bincount(owner, minlength=world_size).tolist()


def send_all(world_size: int) -> list[dict[str, Any]]:
    channel = open_channel("keys", torch.device("cpu"), 30)
    num_messages = 0
    plain = channel.all_to_all

    def count(*arguments: Any) -> torch.Tensor:
        nonlocal num_messages
        num_messages += 1
        return plain(*arguments)

    channel.all_to_all = count  # type: ignore[method-assign]
    found = []
    for time in range(len(SIZES)):
        num_messages = 0
        # of another question, whose numbers say nothing about those of this one
        send_keys(np.arange(time), counts_of(np.zeros(time, np.int64), world_size), channel, "other")
        num_messages, before = 0, channel.traffic.sent_bytes
        keys, owner = keys_of(time, channel.rank, world_size)
        received, recv_counts, is_empty = send_keys(keys, counts_of(owner, world_size), channel, "keys")
        found.append(
            {
                "received": received,
                "recv_counts": recv_counts,
                "is_empty": is_empty,
                "messages": num_messages,
                "bytes": channel.traffic.sent_bytes - before,
            }
        )
    return [x | {"room": channel.rooms.get("keys")} for x in found]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_keys_reach_their_owners_in_as_few_messages_as_can_be(ranks: Ranks, world_size: int) -> None:
    results = ranks.run(world_size, send_all, world_size)
    for time in range(len(SIZES)):
        given = [keys_of(time, rank, world_size) for rank in range(world_size)]
        for rank, result in enumerate(results):
            found = result[time]
            expected = [theirs[owners == rank] for theirs, owners in given]
            np.testing.assert_array_equal(
                found["received"], np.concatenate(expected), err_msg="by sender, in its order"
            )
            assert found["recv_counts"] == [len(x) for x in expected]
            assert found["is_empty"] == (SIZES[time] == 0)
            if world_size > 1:
                assert found["messages"] == MESSAGES[time]
    if world_size > 1:
        room = np.stack([result[-1]["room"] for result in results])
        np.testing.assert_array_equal(room[:, 0], room[:, 1].T, err_msg="both ends of a message know its length")


def test_one_of_many_ranks_that_is_short_of_room_makes_all_wait(ranks: Ranks) -> None:
    """The second message is collective, and those that sent all they had join it."""
    received = ranks.run(4, send_unevenly)
    assert received == [[0, 1, 2, 3], [], list(range(100)), []]


def send_unevenly() -> list[int]:
    channel = open_channel("keys", torch.device("cpu"), 30)
    rank = dist.get_rank()
    send_keys(np.array([rank]), [1, 0, 0, 0], channel, "keys")
    num_keys = 100 if rank == 3 else 0
    to_two = send_keys(np.arange(num_keys), [0, 0, num_keys, 0], channel, "keys")
    again = send_keys(np.array([rank]), [1, 0, 0, 0], channel, "keys")
    return (to_two if rank else again)[0].tolist()


def test_a_header_and_an_eighth_are_the_price(ranks: Ranks) -> None:
    results = ranks.run(2, send_all, 2)
    for time in (1, 2):
        for rank, result in enumerate(results):
            first = int((keys_of(0, rank, 2)[1] != rank).sum())
            assert result[time]["bytes"] == 8 * (HEADER + first + first // 8)


def test_one_rank_keeps_its_keys() -> None:
    channel = Channel("alone")
    received, recv_counts, is_empty = send_keys(np.array([5, 3]), [2], channel, "keys")
    assert (received.tolist(), recv_counts, is_empty) == ([5, 3], [2], False)
    assert channel.traffic.sent_bytes == 0


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_room_is_enough_for_the_same_again_and_never_for_much_more_than_twice(counts: list[int]) -> None:
    room = [0]
    for count in counts:
        room = _room_for([count], room)
        assert count <= room[0] <= 2 * count + FEW
