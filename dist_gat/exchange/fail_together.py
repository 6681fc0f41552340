"""What fails on one rank fails on all: nobody waits for a rank that has given up."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dist_gat.base.errors import ClusterError, StorageError
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.long_work import Stopped


class FailedTogether(StorageError):
    """What all ranks raise where one of them failed."""


@contextmanager
def together(channel: Channel, what: str) -> Iterator[None]:
    """Run the block on every rank; where it fails on any, all raise `FailedTogether` with that rank's number and error.

    Collective. `what` says what the ranks were doing. A collective that fails inside the block ends it at once, and so
    does what all ranks raise there: `Stopped`, and the error of a block inside it.
    """
    failure: Exception | None = None
    try:
        yield
    except (ClusterError, Stopped, FailedTogether):
        raise
    except Exception as err:
        failure = err
    errors = share_text(_told(failure), channel)
    failed = [f"rank {rank}: {error}" for rank, error in enumerate(errors) if error]
    if failed:
        raise FailedTogether(f"{what}: {'; '.join(failed)}") from failure


def _told(failure: Exception | None) -> str:
    if failure is None:
        return ""
    if isinstance(failure, OSError):
        return f"{failure}; free some space there" if failure.errno == errno.ENOSPC else str(failure)
    return f"{type(failure).__name__}: {failure}"


def share_text(text: str, channel: Channel) -> list[str]:
    """The text of every rank, on every rank. Collective, on a CPU channel."""
    if channel.group is None:
        return [text]
    letters = torch.tensor(list(text.encode()), dtype=torch.uint8)
    send_counts = [len(letters)] * channel.world_size
    recv_counts = channel.all_to_all_counts(torch.tensor(send_counts))
    received = channel.all_to_all(letters.repeat(channel.world_size), send_counts, recv_counts)
    return [bytes(piece.tolist()).decode() for piece in received.split(recv_counts)]
