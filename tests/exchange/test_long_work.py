"""Work that all ranks do together: it tells how far it is, and ends on all of them after the same step."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from helpers import Ranks
from processes import AskedAt

from dist_gat.base.errors import StorageError
from dist_gat.exchange import long_work
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import together
from dist_gat.exchange.long_work import Stopped, padded, tell_nothing
from dist_gat.exchange.worker import Worker, join_workers, lone_worker


def steps_done(worker: Worker, total: int, nap_s: float = 0.0) -> tuple[int, bool]:
    """How many steps were begun, and whether the work was stopped."""
    done = 0
    try:
        for _ in worker.steps("counting", range(total), total):
            done += 1
            time.sleep(nap_s)
    except Stopped:
        return done, True
    return done, False


def on_rank(asked: int, total: int, naps: tuple[float, ...]) -> tuple[int, bool]:
    """Rank `asked` hears the request at its third look, the others never."""
    rank = torch.distributed.get_rank()
    worker = join_workers(torch.device("cpu"), 1, 30, AskedAt(3 if rank == asked else 0))
    found = steps_done(worker, total, naps[rank])
    worker.control.barrier()
    return found


@pytest.mark.parametrize("asked", [0, 1])
def test_all_ranks_stop_after_the_same_step(ranks: Ranks, asked: int) -> None:
    """Also where one is slower, so that the time between looks is another on each."""
    first, second = ranks.run(2, on_rank, asked, 10_000, (0.0, 0.002))
    assert first == second
    # looks after steps 1, 3 and 7
    assert first == (7, True)


def test_nobody_stops_without_a_request(ranks: Ranks) -> None:
    assert ranks.run(2, on_rank, 5, 300, (0.0, 0.0)) == [(300, False)] * 2


def test_steps_that_are_fast_are_looked_at_seldom_and_slow_ones_each(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = AskedAt(0), AskedAt(0)
    assert steps_done(lone_worker(requests=fast), 1000) == (1000, False)
    assert fast.looks <= 10
    monkeypatch.setattr(long_work, "LOOK_EVERY_S", 0.001)
    steps_done(lone_worker(requests=slow), 10, nap_s=0.01)
    assert slow.looks == 10


def test_work_tells_how_far_it_is_once_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int, float]] = []

    def tell(*event: object) -> None:
        told.append(event)  # type: ignore[arg-type]

    monkeypatch.setattr(long_work, "LOOK_EVERY_S", 0.0)
    steps_done(lone_worker(tell=tell), 5)
    assert not told
    monkeypatch.setattr(long_work, "TELL_FIRST_S", 0.05)
    steps_done(lone_worker(tell=tell), 5, nap_s=0.03)
    assert [event[:3] for event in told] == [("counting", done, 5) for done in (2, 3, 4, 5)]
    assert 0.05 <= told[0][3] < told[1][3]
    assert tell_nothing("counting", 1, 2, 3.0) is None


def fail_in_step(what: Callable[[], None]) -> str:
    """A rank fails in its second step, inside a block that is about the whole."""
    worker = join_workers(torch.device("cpu"), 1, 10)
    with pytest.raises(StorageError) as caught, together(worker.control, "the whole"):
        for step in worker.steps("writing", range(4), 4):
            with together(worker.control, "a part"):
                if step == 1 and worker.rank == 1:
                    what()
    return str(caught.value)


def no_space() -> None:
    raise OSError("no space")


def test_a_rank_that_fails_in_a_step_fails_on_all_without_a_wait(ranks: Ranks) -> None:
    assert ranks.run(2, fail_in_step, no_space, timeout_s=10) == ["a part: rank 1: no space"] * 2


def pad_on_rank() -> list[int]:
    worker = join_workers(torch.device("cpu"), 1, 30)
    return padded(list(range(worker.rank)), -1, worker.control)


def test_all_ranks_have_as_many_steps_as_the_busiest(ranks: Ranks) -> None:
    assert ranks.run(4, pad_on_rank) == [[-1, -1, -1], [0, -1, -1], [0, 1, -1], [0, 1, 2]]
    assert padded([3, 4], -1, Channel("alone")) == [3, 4]
