"""`send_keys`: keys to the ranks that own them, as a rule in one message.

A receiver doesn't know how many keys will come, and telling it first would cost the latency of one more collective. So
both ends derive the length of a message from the previous call: a header, and room for as many keys as were sent then
and a few more. Where any message is too short, which the headers tell all ranks, the rest follows in a second message.

Shape legend: N keys of this rank, M keys that this rank received, W ranks.
"""

from __future__ import annotations

import numpy as np
import torch

from dist_gat.exchange.channel import Channel
from dist_gat.kernels.grouping import split

# keys for this receiver, whether any message of the sender is too short, whether the sender has any keys
HEADER = 3
# keys by which small messages differ from call to call; large ones differ by less than an eighth
FEW = 16


def send_keys(
    keys: np.ndarray, send_counts: list[int], channel: Channel, question: str
) -> tuple[np.ndarray, list[int], bool]:
    """Send int64 [N], the first send_counts[0] of them to rank 0, and so on. Collective, even with N = 0.

    question: what the keys are for. Their number should be about the same every time for one question.
    Returns the keys received, int64 [M], by sending rank, in its order; how many from each; whether no rank sent any.
    """
    if channel.group is None:
        return keys, send_counts, not len(keys)
    send_room, recv_room = channel.rooms.get(question, ([0] * channel.world_size,) * 2)
    rest_counts = [max(count - room, 0) for count, room in zip(send_counts, send_room, strict=True)]
    message = np.zeros(sum(send_room) + HEADER * channel.world_size, np.int64)
    is_short, at, stop, rest = any(rest_counts), 0, 0, []
    for count, room, num_rest in zip(send_counts, send_room, rest_counts, strict=True):
        start, stop, first = stop, stop + count, count - num_rest
        message[at : at + HEADER] = count, is_short, len(keys) > 0
        message[at + HEADER : at + HEADER + first] = keys[start : start + first]
        rest.append(keys[start + first : stop])
        at += HEADER + room
    answer = _all_to_all(message, _with_headers(send_room), _with_headers(recv_room), channel)
    at, heads, received = 0, [], []
    for room in recv_room:
        heads.append(answer[at : at + HEADER].tolist())
        received.append(answer[at + HEADER : at + HEADER + min(heads[-1][0], room)])
        at += HEADER + room
    recv_counts, any_short, any_keys = (list(x) for x in zip(*heads, strict=True))
    if any(any_short):
        missing = [max(count - room, 0) for count, room in zip(recv_counts, recv_room, strict=True)]
        others = split(_all_to_all(np.concatenate(rest), rest_counts, missing, channel), missing)
        received = [x for both in zip(received, others, strict=True) for x in both]
    channel.rooms[question] = _room_for(send_counts, send_room), _room_for(recv_counts, recv_room)
    return np.concatenate(received), recv_counts, not any(any_keys)


def _with_headers(room: list[int]) -> list[int]:
    return [HEADER + x for x in room]


def _all_to_all(keys: np.ndarray, send_counts: list[int], recv_counts: list[int], channel: Channel) -> np.ndarray:
    return channel.all_to_all(torch.from_numpy(keys), send_counts, recv_counts).numpy()


def _room_for(counts: list[int], room: list[int]) -> list[int]:
    """The room of each message in the next call; sender and receiver compute the same."""
    return [
        had if count <= had <= 2 * count + FEW else count + max(count // 8, FEW)
        for count, had in zip(counts, room, strict=True)
    ]
