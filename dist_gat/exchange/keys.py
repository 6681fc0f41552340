"""`send_keys`: keys to the ranks that own them, as a rule in one message.

A receiver doesn't know how many keys will come. To tell it first would be a collective more, and what those cost is
their latency. So both ends know from the time before how long a message is: a header and room for as many keys as were
sent then and an eighth more. Where the room of any rank is too short, which the headers tell all ranks, the rest
follows in a second message.

Shape legend: N keys of this rank, M keys that this rank received, W ranks.
"""

from __future__ import annotations

import numpy as np
import torch

from dist_gat.exchange.channel import Channel

# keys for this receiver, whether the room of any of the sender's messages is too short, whether it sends any keys
HEADER = 3


def send_keys(
    keys: np.ndarray, counts: np.ndarray, channel: Channel, question: str
) -> tuple[np.ndarray, list[int], bool]:
    """Send int64 [N], the first counts[0] of them to rank 0, and so on. Collective, even with N = 0.

    question: what the keys are for. Their number should be about the same every time for one question.
    Returns the keys received, int64 [M], by sending rank, in its order; how many from each; whether no rank sent any.
    """
    if channel.group is None:
        return keys, counts.tolist(), not len(keys)
    room = channel.rooms.get(question, np.zeros((2, channel.world_size), np.int64))
    first_counts = np.minimum(counts, room[0])
    is_short = bool((first_counts < counts).any())
    message = np.zeros(int(room[0].sum()) + HEADER * channel.world_size, np.int64)
    rest, stop = [], 0
    for part, count, first in zip(
        _split(message, room[0] + HEADER), counts.tolist(), first_counts.tolist(), strict=True
    ):
        part[:HEADER] = count, is_short, len(keys) > 0
        start, stop = stop, stop + count
        part[HEADER : HEADER + first] = keys[start : start + first]
        rest.append(keys[start + first : stop])
    parts = _split(_all_to_all(message, room[0] + HEADER, room[1] + HEADER, channel), room[1] + HEADER)
    recv_counts, any_short, any_keys = np.stack([part[:HEADER] for part in parts], axis=1)
    received = [part[HEADER : HEADER + count] for part, count in zip(parts, recv_counts.tolist(), strict=True)]
    if any_short.any():
        missing = np.maximum(recv_counts - room[1], 0)
        others = _all_to_all(np.concatenate(rest), counts - first_counts, missing, channel)
        received = [x for both in zip(received, _split(others, missing), strict=True) for x in both]
    channel.rooms[question] = _room_for(np.stack([counts, recv_counts]), room)
    return np.concatenate(received), recv_counts.tolist(), not any_keys.any()


def _split(message: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(message, np.cumsum(lengths)[:-1])


def _all_to_all(keys: np.ndarray, send_counts: np.ndarray, recv_counts: np.ndarray, channel: Channel) -> np.ndarray:
    return channel.all_to_all(torch.from_numpy(keys), send_counts.tolist(), recv_counts.tolist()).numpy()


def _room_for(counts: np.ndarray, room: np.ndarray) -> np.ndarray:
    """int64 [2, W], for what is sent to each rank and received from it; both ends of a message find the same."""
    fits = (counts <= room) & (room <= 2 * counts)
    return np.where(fits, room, counts + counts // 8)
