"""`SearchQueue`: requests wait here for the search, which takes all that wait at once; a full queue refuses.

One thread searches, on as many cores as kernels use. While it does, requests gather; together they read the rows of
items once. So batches grow with the load, and nobody waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dist_gat.explain.opened_run import OpenedRun
from dist_gat.serve.opened_model import Answer, Question
from dist_gat.server.live_model import LiveModel
from dist_gat.server.problem import TOO_MANY, Problem
from dist_gat.server.server_metrics import ServerMetrics

Result = TypeVar("Result")
SMOOTHING = 0.2  # of the newest batch in the seconds that a user takes


@dataclass(frozen=True)
class _Waiting:
    """work: a question, or what is done with the model. users: how many it counts for."""

    work: Question | Callable[[OpenedRun], Any]
    users: int
    result: asyncio.Future[tuple[Any, OpenedRun]]


class SearchQueue:
    """most_waiting, most_at_once: users."""

    def __init__(self, live: LiveModel, most_waiting: int, most_at_once: int, metrics: ServerMetrics) -> None:
        self.live, self.most_waiting, self.most_at_once, self.metrics = live, most_waiting, most_at_once, metrics
        self.waiting: deque[_Waiting] = deque()
        self.num_users = 0
        self.seconds_a_user = 0.001
        self.pool = ThreadPoolExecutor(1, "search")
        self._arrived = asyncio.Event()

    async def ask(self, question: Question, users: int) -> tuple[Answer, OpenedRun]:
        """The answer and the model that gave it. Raises `Problem` where too many wait, and what `answer` finds."""
        return await self._wait(question, users)

    async def call(self, function: Callable[[OpenedRun], Result], users: int) -> tuple[Result, OpenedRun]:
        """What the function makes of the model, in the same turn. Raises `Problem`, and what the function does."""
        return await self._wait(function, users)

    def need_room(self, users: int = 1) -> None:
        """Raise `Problem` where too many wait for so many more."""
        if self.waiting and self.num_users + users > self.most_waiting:
            after = max(1, math.ceil(self.num_users * self.seconds_a_user))
            raise Problem(
                TOO_MANY, f"{self.num_users:,} users wait already", f"at most {self.most_waiting:,}",
                f"come again in {after} s, as Retry-After says, or start more replicas", {"Retry-After": str(after)},
            )  # fmt: skip

    async def _wait(self, work: Question | Callable[[OpenedRun], Any], users: int) -> tuple[Any, OpenedRun]:
        self.need_room(users)
        one = _Waiting(work, users, asyncio.get_running_loop().create_future())
        self.waiting.append(one)
        self._count(users)
        self._arrived.set()
        return await one.result

    async def run(self) -> None:
        """Search until cancelled."""
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not self.waiting:
                self._arrived.clear()
            if batch:
                await self._search(batch)

    def _take(self) -> list[_Waiting]:
        """Those who came first, as many as are searched for at once; not who has gone."""
        batch: list[_Waiting] = []
        users = 0
        while self.waiting and (not batch or users + self.waiting[0].users <= self.most_at_once):
            one = self.waiting.popleft()
            self._count(-one.users)
            if not one.result.done():
                batch.append(one)
                users += one.users
        return batch

    async def _search(self, batch: list[_Waiting]) -> None:
        model, users, started = self.live.now, sum(one.users for one in batch), time.perf_counter()
        found = await asyncio.get_running_loop().run_in_executor(self.pool, answer_all, model, batch)
        seconds = time.perf_counter() - started
        self.seconds_a_user += SMOOTHING * (seconds / users - self.seconds_a_user)
        self.metrics.searched(users, seconds)
        for one, result in zip(batch, found, strict=True):
            if one.result.done():
                continue
            if isinstance(result, Exception):
                one.result.set_exception(result)
            else:
                one.result.set_result((result, model))

    def _count(self, users: int) -> None:
        self.num_users += users
        self.metrics.waiting.set(self.num_users)

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def answer_all(model: OpenedRun, batch: list[_Waiting]) -> list[Any]:
    """Of each, what it asked for, or the error."""
    asked = [one.work for one in batch if isinstance(one.work, Question)]
    try:
        answers: list[Any] = list(model.answer(asked))
    except Exception:
        # a defect of ours, which one of the questions brings out: the others have their answers
        answers = [outcome(partial(_answer, question), model) for question in asked]
    of_questions = iter(answers)
    return [next(of_questions) if isinstance(one.work, Question) else outcome(one.work, model) for one in batch]


def _answer(question: Question, model: OpenedRun) -> Any:
    return model.answer([question])[0]


def outcome(function: Callable[[OpenedRun], Any], model: OpenedRun) -> Any:
    """What the function returns or raises."""
    try:
        return function(model)
    except Exception as err:
        return err
