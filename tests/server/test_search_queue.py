"""The queue of searches: who waits together is searched for together, a full queue refuses, a defect is its owner's."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dist_gat.serve.opened_model import Question
from dist_gat.server.problem import Problem
from dist_gat.server.search_queue import SearchQueue
from dist_gat.server.server_metrics import ServerMetrics

BAD = Question(["bad"])


class Model:
    """Answers with the users of a question once it may; fails at one of them."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.batches: list[int] = []

    def answer(self, questions: list[Question]) -> list[Any]:
        self.may_answer.wait(30)
        self.batches.append(len(questions))
        if BAD in questions:
            raise RuntimeError("a defect")
        return [question.users for question in questions]


def queue_of(model: Model) -> SearchQueue:
    return SearchQueue(SimpleNamespace(now=model), 6, 4, ServerMetrics())  # type: ignore[arg-type]


async def asked(queue: SearchQueue, model: Model, *questions: Question) -> list[Any]:
    """What each comes to; the first is searched for alone, for the others come meanwhile."""
    running = asyncio.create_task(queue.run())
    tasks = []
    for question in questions:
        tasks.append(asyncio.create_task(queue.ask(question, len(question.users))))
        await asyncio.sleep(0.05)
    model.may_answer.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    running.cancel()
    queue.close()
    return found


def test_those_who_wait_are_searched_for_together_and_a_full_queue_refuses() -> None:
    model = Model()
    queue = queue_of(model)
    ones = [Question([f"u{n}"]) for n in range(8)]
    found = asyncio.run(asked(queue, model, *ones))
    assert [one[0] for one in found[:7]] == [question.users for question in ones[:7]]
    assert all(one[1] is model for one in found[:7])
    assert isinstance(found[7], Problem)
    assert (found[7].status, int(found[7].headers["Retry-After"]) >= 1) == (429, True)
    assert model.batches == [1, 4, 2]
    assert queue.num_users == 0


def test_a_question_of_more_users_than_may_wait_is_taken_where_nobody_waits() -> None:
    model = Model()
    large = Question([f"u{n}" for n in range(20)])
    found = asyncio.run(asked(queue_of(model), model, Question(["a"]), large, Question(["b"])))
    assert [one[0] for one in found[:2]] == [["a"], large.users]
    assert isinstance(found[2], Problem)


def test_a_defect_that_one_question_brings_out_is_told_to_who_asked_it() -> None:
    model = Model()
    found = asyncio.run(asked(queue_of(model), model, Question(["a"]), Question(["b"]), BAD, Question(["c"])))
    assert [one[0] for one in (found[0], found[1], found[3])] == [["a"], ["b"], ["c"]]
    assert isinstance(found[2], RuntimeError)


def test_who_has_gone_is_not_searched_for() -> None:
    model = Model()
    queue = queue_of(model)

    async def ask_and_go() -> Any:
        running = asyncio.create_task(queue.run())
        tasks = [asyncio.create_task(queue.ask(Question([name]), 1)) for name in "abc"]
        await asyncio.sleep(0.05)
        last = asyncio.create_task(queue.ask(Question(["d"]), 1))
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        last.cancel()
        await asyncio.sleep(0)
        model.may_answer.set()
        found = await asyncio.gather(*tasks[1:])
        with pytest.raises(asyncio.CancelledError):
            await last
        await asyncio.sleep(0.05)
        running.cancel()
        queue.close()
        return found

    assert [one[0] for one in asyncio.run(ask_and_go())] == [["b"], ["c"]]
    assert sum(model.batches) == 3
