"""`Channel`: one communicator between the ranks, with a timeout and a count of what it moved.

Each stream of collectives has a channel of its own (sampling in the background, embedding rows, metrics),
because collectives of one process group must be issued in the same order by every rank.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from dist_gat.base.errors import ClusterError, first_line
from dist_gat.exchange.shared_rows import MAX_RANKS, Handle, SharedRows, map_memory, new_memory

ROLL_CALL_S = 5


@dataclass
class Traffic:
    """Running totals of one channel: bytes sent to other ranks, and seconds spent in its collectives."""

    sent_bytes: int = 0
    seconds: float = 0.0


@dataclass
class Channel:
    """group: the process group, or None where there is one rank and nothing to send.

    store: where the ranks met; after a failed collective they look for each other there.
    shared: memory that all ranks map, where they are on one host; see `share_memory`.
    rooms: by question, how many keys a message to and from each rank has room for; see `send_keys`.
    """

    name: str
    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None
    device: torch.device = torch.device("cpu")
    traffic: Traffic = field(default_factory=Traffic)
    store: dist.Store | None = None
    shared: SharedRows | None = None
    rooms: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)

    def room(self, num_rows: int, like: Tensor) -> Tensor:
        """Where to write the rows that `start_rows` sends, [num_rows, R] of the matrix `like`'s type and device."""
        if self.shared is None:
            return like.new_empty((num_rows, like.shape[1]))
        return self.shared.room(num_rows, like)

    def start_rows(self, room: Tensor, send_counts: list[int], recv_counts: list[int]) -> Callable[[], list[Tensor]]:
        """Begin to send the rows in `room`, the first send_counts[0] of them to rank 0, and so on.

        The function that it returns waits for recv_counts[r] rows from each rank r. Call it and read the rows before
        asking for this channel's next `room`.
        """
        if self.shared is None or self.group is None:
            wait_for_all = self.start_all_to_all(room, send_counts, recv_counts)
            return lambda: list(wait_for_all().split(recv_counts))
        half, arrived = self.shared.publish(send_counts), torch.zeros(1)
        with self._watch("all_to_all"):
            work = dist.all_reduce(arrived, group=self.group, async_op=True)
        self._count(room, send_counts)

        def wait() -> list[Tensor]:
            with self._watch("all_to_all"):
                work.wait()
            assert self.shared is not None
            received = self.shared.received(half, room)
            assert [len(rows) for rows in received] == recv_counts, "ranks agree on what travels"
            return received

        return wait

    def all_to_all(self, rows: Tensor, send_counts: list[int], recv_counts: list[int]) -> Tensor:
        """Send the first send_counts[0] rows to rank 0, and so on; receive recv_counts[r] rows from each r."""
        if self.shared is None or rows.dim() != 2:
            return self.start_all_to_all(rows, send_counts, recv_counts)()
        room = self.room(len(rows), rows).copy_(rows)
        return torch.cat(self.start_rows(room, send_counts, recv_counts)())

    def start_all_to_all(self, rows: Tensor, send_counts: list[int], recv_counts: list[int]) -> Callable[[], Tensor]:
        """Begin `all_to_all`; the function that it returns waits for the rows and returns them."""
        if self.group is None:
            return lambda: rows
        rows, received = rows.contiguous(), rows.new_empty((sum(recv_counts), *rows.shape[1:]))
        with self._watch("all_to_all"):
            work = dist.all_to_all_single(
                received, rows, recv_counts, send_counts, group=self.group, async_op=True
            )  # fmt: skip
        self._count(rows, send_counts)

        def wait() -> Tensor:
            with self._watch("all_to_all"):
                work.wait()
            return received

        return wait

    def all_to_all_counts(self, send_counts: Tensor) -> list[int]:
        """Tell every rank how many rows it will get from this one; int64 [W] in, the counts to receive out."""
        if self.group is None:
            return send_counts.tolist()
        received = torch.empty_like(send_counts, device=self.device)
        with self._watch("all_to_all of counts"):
            dist.all_to_all_single(received, send_counts.to(self.device), group=self.group)
        return received.tolist()

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, on every rank; of the shape, type and device of `values`."""
        if self.group is None:
            return values
        total = values.to(self.device, copy=True)
        with self._watch("all_reduce"):
            dist.all_reduce(total, group=self.group)
        return total.to(values.device)

    def barrier(self) -> None:
        self.sum(torch.zeros(1))

    def _count(self, rows: Tensor, send_counts: list[int]) -> None:
        row_bytes = rows.element_size() * prod(rows.shape[1:])
        self.traffic.sent_bytes += row_bytes * (sum(send_counts) - send_counts[self.rank])

    def _watch(self, operation: str) -> _Watch:
        return _Watch(self, operation)


@dataclass
class _Watch:
    """Times one collective, and says which one failed on which rank."""

    channel: Channel
    operation: str
    started: float = 0.0

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.channel.traffic.seconds += time.perf_counter() - self.started
        if isinstance(error, RuntimeError):
            channel = self.channel
            missing = who_is_missing(channel.rank, channel.world_size, channel.store)
            raise ClusterError(
                f"rank {channel.rank} of {channel.world_size}: {self.operation} on channel '{channel.name}' failed: "
                f"{missing}. Look at its log and host first; launch.timeout_s is how long the others wait. "
                f"({first_line(error)})"
            ) from error


def who_is_missing(rank: int, world_size: int, store: dist.Store | None) -> str:
    """Says which ranks do not report at the store, where all ranks met, within a few seconds of the failure."""
    if store is None:
        return "some rank does not answer"
    key = "dist_gat/roll_call/{}".format
    end = time.monotonic() + ROLL_CALL_S
    try:
        store.set(key(rank), "here")
        missing = set(range(world_size)) - {rank}
        while missing and time.monotonic() < end:
            missing -= {other for other in missing if store.check([key(other)])}
            time.sleep(0.05)
    except RuntimeError:
        return "rank 0, which keeps the store, does not answer"
    names = ", ".join(map(str, sorted(missing)))
    return f"rank {names} does not answer" if missing else "all ranks report now, so one of them came too late"


def open_channel(name: str, device: torch.device, timeout_s: float, store: dist.Store | None = None) -> Channel:
    """A channel over all ranks of the default process group: gloo for CPU rows, NCCL for GPU rows.

    Collective: every rank opens the same channels in the same order.
    """
    if not dist.is_initialized():
        return Channel(name, device=device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    group = dist.new_group(backend=backend, timeout=timedelta(seconds=timeout_s))
    return Channel(name, dist.get_rank(), dist.get_world_size(), group, device, store=store)


def share_memory(channel: Channel) -> None:
    """Let `start_rows` use shared memory, where all ranks are on one host and can map each other's. Collective."""
    if channel.group is None or channel.device.type != "cpu" or channel.world_size > MAX_RANKS:
        return
    own = new_memory()
    handles: list[Handle | None] = [None] * channel.world_size
    dist.all_gather_object(handles, None if own is None else own[1], group=channel.group)
    memory = [None if handle is None else map_memory(handle) for handle in handles]
    found = [x for x in memory if x is not None]
    missing = channel.sum(torch.tensor([float(channel.world_size - len(found))]))
    if own is not None:
        os.close(own[0])
    if not missing.item():
        channel.shared = SharedRows(found, channel.rank)
