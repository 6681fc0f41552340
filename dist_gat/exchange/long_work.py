"""Long work of all ranks, step by step: it tells how far it is, and ends on all ranks where one is asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.stop_requests import Request, Requests

LOOK_EVERY_S = 0.5
# work that is done sooner tells nothing
TELL_FIRST_S = 2.0
Step = TypeVar("Step")
# what is done, steps done and to do in all, seconds since its start
Tell = Callable[[str, int, int, float], None]


class Stopped(Exception):
    """One of the ranks was asked to stop; all of them raise this after the same step of their work."""


class Steps(Protocol):
    """Goes through the steps of one work, of which all ranks have equally many; see `follow`."""

    def __call__(self, what: str, steps: Iterable[Step], total: int) -> Iterable[Step]: ...


def plain_steps(what: str, steps: Iterable[Step], total: int) -> Iterable[Step]:
    """The steps as they are: they tell nothing and don't stop."""
    return steps


def tell_nothing(what: str, done: int, total: int, seconds: float) -> None:
    """A `Tell` for those who don't ask."""


def follow(
    what: str, steps: Iterable[Step], total: int, channel: Channel, requests: Requests, tell: Tell
) -> Iterator[Step]:
    """Yield `total` steps. Now and then the ranks look together for requests to stop, and tell how far they are.

    Collective: all ranks have equally many steps. How often they look follows from the slowest rank's time, so that all
    look after the same step: about every `LOOK_EVERY_S`, or after each step that takes longer. Raises `Stopped`.
    """
    started = looked = time.monotonic()
    stride = next_look = 1
    for number, step in enumerate(steps, start=1):
        yield step
        if number < next_look:
            continue
        now = time.monotonic()
        seconds, request = agree(channel, now - looked, requests.poll())
        if request == Request.STOP:
            requests.heed(request)
            raise Stopped
        # at most twice as many steps as before: the next ones may take longer
        stride = max(1, min(2 * stride, int(stride * LOOK_EVERY_S / max(seconds, 1e-9))))
        looked, next_look = now, number + stride
        if now - started >= TELL_FIRST_S:
            tell(what, number, total, now - started)


def agree(channel: Channel, seconds: float, request: Request) -> tuple[float, Request]:
    """The longest time and the highest request of all ranks. Collective."""
    found_W2 = torch.zeros(channel.world_size, 2, dtype=torch.float64)
    found_W2[channel.rank] = torch.tensor([seconds, float(request)], dtype=torch.float64)
    longest, highest = channel.sum(found_W2).max(dim=0).values.tolist()
    return longest, Request(int(highest))


def padded(steps: Sequence[Step], nothing: Step, channel: Channel) -> list[Step]:
    """The steps of this rank, then empty ones, up to the largest number on any rank: all ranks must join in each.

    Collective.
    """
    counts = torch.zeros(channel.world_size, dtype=torch.int64)
    counts[channel.rank] = len(steps)
    most = int(channel.sum(counts).max())
    return [*steps, *[nothing] * (most - len(steps))]
