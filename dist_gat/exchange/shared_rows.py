"""`SharedRows`: rows between the ranks of one host, through memory that all of them map instead of through sockets.

A rank gathers what it sends into its own memory, and the others read it there: no copy into a message, none out of it.
On one core a rank, sockets took a tenth of a training step.

The memory is anonymous (memfd) and goes with the last process that maps it, however that ends. Exchanges alternate
between its two halves: exchange n overwrites exchange n - 2, which every rank has read before it begins exchange n - 1.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# size of one half; only written pages take memory, as many as the largest exchange so far has written
HALF_BYTES = 1 << 35
# size of the table of one half: the row at which the rows for each rank begin
TABLE_BYTES = 4096
MAX_RANKS = TABLE_BYTES // 8 - 1
HALVES = 2
TOKEN_BYTES = 16


@dataclass(frozen=True)
class Handle:
    """Where another process of this host finds a rank's memory, and the token that it must read there."""

    process: int
    file: int
    token: bytes


@dataclass
class SharedRows:
    """memory: one mapping per rank. turn: the half that the next exchange writes to."""

    memory: list[mmap.mmap]
    rank: int
    turn: int = 0

    def room(self, num_rows: int, like: Tensor) -> Tensor:
        """Where to write the rows of the next exchange, shaped like those of the matrix `like`, by receiving rank."""
        return _rows(self.memory[self.rank], self.turn, slice(0, num_rows), like)

    def publish(self, send_counts: list[int]) -> int:
        """End the writing: the first send_counts[0] rows are for rank 0, and so on. Returns the exchange's half."""
        half, self.turn = self.turn, 1 - self.turn
        _starts(self.memory[self.rank], half, len(send_counts))[:] = np.cumsum([0, *send_counts])
        return half

    def received(self, half: int, like: Tensor) -> list[Tensor]:
        """The rows of each rank for this one, after all have published; valid until this rank publishes again."""
        found = []
        for memory in self.memory:
            first, last = _starts(memory, half, len(self.memory))[self.rank : self.rank + 2].tolist()
            found.append(_rows(memory, half, slice(first, last), like))
        return found


def _starts(memory: mmap.mmap, half: int, world_size: int) -> np.ndarray:
    return np.frombuffer(memory, np.int64, world_size + 1, half * TABLE_BYTES)


def _rows(memory: mmap.mmap, half: int, rows: slice, like: Tensor) -> Tensor:
    size = like.shape[1]
    row_bytes, count = size * like.element_size(), (rows.stop - rows.start) * size
    assert rows.stop * row_bytes <= HALF_BYTES, "more rows than a half has room for"
    if not count:
        return torch.empty((rows.stop - rows.start, size), dtype=like.dtype)
    offset = HALVES * TABLE_BYTES + half * HALF_BYTES + rows.start * row_bytes
    return torch.frombuffer(memory, dtype=like.dtype, count=count, offset=offset).view(-1, size)


def new_memory() -> tuple[int, Handle] | None:
    """An open file with this rank's memory, to be closed when all have mapped it; None where the system has none."""
    if not hasattr(os, "memfd_create"):
        return None
    token = os.urandom(TOKEN_BYTES)
    try:
        file = os.memfd_create("dist_gat rows")
    except OSError:
        return None
    try:
        os.ftruncate(file, HALVES * (TABLE_BYTES + HALF_BYTES))
        os.pwrite(file, token, 0)
    except OSError:
        os.close(file)
        return None
    return file, Handle(os.getpid(), file, token)


def map_memory(handle: Handle) -> mmap.mmap | None:
    """The memory of a rank; None where it is not on this host, or this process may not see it."""
    try:
        with Path(f"/proc/{handle.process}/fd/{handle.file}").open("r+b") as file:
            # in another container, the same process and file numbers can mean another file
            if file.read(TOKEN_BYTES) != handle.token:
                return None
            return mmap.mmap(file.fileno(), HALVES * (TABLE_BYTES + HALF_BYTES))
    except OSError:
        return None
