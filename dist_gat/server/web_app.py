"""The web application of one served model: its paths, and how each is answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from multiprocessing import parent_process
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from dist_gat import __version__
from dist_gat.base.errors import DistGatError, StorageError
from dist_gat.base.json_text import to_json
from dist_gat.evaluate.topk import RunningTopK
from dist_gat.serve.opened_model import Answer, OpenedModel, Question
from dist_gat.server import messages
from dist_gat.server.explainer import Explainer
from dist_gat.server.live_model import LiveModel
from dist_gat.server.problem import BAD_REQUEST, BROKEN, Problem, not_json, problem_of, problem_of_fields
from dist_gat.server.request_guard import RequestGuard, RequestMeter
from dist_gat.server.search_queue import SearchQueue
from dist_gat.server.server_metrics import ServerMetrics
from dist_gat.server.server_settings import ServerSettings

log = logging.getLogger(__name__)


def build_app(settings: ServerSettings) -> FastAPI:
    """Open the model and answer for it. Raises `StorageError` where it can't be opened."""
    torch.set_num_threads(settings.threads)
    metrics = ServerMetrics()
    live = LiveModel(settings.model, metrics.opened, settings.index_probes, settings.run)
    queue = SearchQueue(live, settings.max_waiting, settings.max_batch, metrics)
    explainer = Explainer()

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        beside = [asyncio.create_task(queue.run()), asyncio.create_task(watch(settings, live, metrics))]
        yield
        for task in beside:
            task.cancel()
        queue.close()
        explainer.close()

    app = FastAPI(
        title="dist_gat", version=__version__, lifespan=running,
        description="Recommendations of a trained graph-attention model.",
    )  # fmt: skip
    add_answers(app, queue, explainer)
    add_state(app, live, metrics)
    add_problems(app)
    # the last one is the outermost
    app.add_middleware(RequestGuard, settings=settings, need_room=queue.need_room)
    app.add_middleware(RequestMeter, paths=frozenset(app.openapi()["paths"]), answered=metrics.answered)
    return app


def add_answers(app: FastAPI, queue: SearchQueue, explainer: Explainer) -> None:
    """The paths that ask the model."""

    @app.post("/recommend", response_model=messages.RecommendAnswer)
    async def recommend(body: messages.RecommendRequest) -> Response:
        """The best items of users, in the order of the request. Users that nobody knows are an error, 404."""
        question = Question(
            [str(user) for user in body.users], body.k, [user.plain() for user in body.new_users],
            None if body.candidates is None else [str(item) for item in body.candidates],
            [str(item) for item in body.exclude], body.filter_seen, [item.plain() for item in body.new_items] or None,
        )  # fmt: skip
        # a new item costs what a new user does
        answer, model = await queue.ask(question, len(body.users) + len(body.new_users) + len(body.new_items))
        return answered(model, recommendations=items_by_user(answer), notes=answer.notes)

    @app.post("/score", response_model=messages.ScoreAnswer)
    async def score(body: messages.ScoreRequest) -> Response:
        """Scores of items for one user, as `recommend` gives them."""
        new_user, items = None if body.new_user is None else body.new_user.plain(), [str(item) for item in body.items]
        added = [item.plain() for item in body.new_items]
        table, model = await queue.call(
            lambda model: (model.beside(added) if added else model).score(body.user, items, new_user), 1 + len(added)
        )
        return answered(model, scores=table.to_dicts())

    @app.post("/similar", response_model=messages.SimilarAnswer)
    async def similar(body: messages.SimilarRequest) -> Response:
        """What is like each item, or who is like each user."""
        kind, asked = ("items", body.items) if body.items else ("users", body.users)
        texts = [str(one) for one in asked]
        table, model = await queue.call(lambda model: model.similar(**{kind: texts}, k=body.k), len(texts))
        rows = table.select("similar_id", "cosine", "rank").rename({"similar_id": "id"}).to_dicts()
        each = len(rows) // len(texts)  # the same for all: everything but itself
        found = [{"id": one, "similar": rows[at * each : (at + 1) * each]} for at, one in enumerate(asked)]
        return answered(model, similar=found)

    @app.post("/explain", response_model=messages.ExplainAnswer)
    async def explain(body: messages.ExplainRequest) -> Response:
        """What each interaction of a user contributes to an item's score; needs the run's data set, takes a second."""
        model = queue.live.now
        item = None if body.item is None else str(body.item)
        found = await explainer.explain(model, str(body.user), item, body.top)
        return answered(model, explanation=found)


def add_state(app: FastAPI, live: LiveModel, metrics: ServerMetrics) -> None:
    """The paths about the server."""

    @app.get("/health/live", response_model=messages.Health)
    async def is_live() -> Response:
        """That the process answers."""
        return answered(live.now, status="live")

    @app.get("/health/ready", response_model=messages.Health)
    async def is_ready() -> Response:
        """That a model answers, and whether the run's newest could not be opened."""
        return answered(live.now, status="ready", trouble=live.trouble)

    @app.get("/metrics", response_class=Response)
    async def tell_metrics() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.post("/reload", response_model=messages.ReloadAnswer)
    async def reload() -> Response:
        """Open the run's model where it is another one; requests are answered meanwhile."""
        changed = await live.reload()
        return answered(live.now, changed=changed)


def add_problems(app: FastAPI) -> None:
    """Every error is JSON that says what, expected and remedy."""

    @app.exception_handler(Problem)
    async def of_ours(request: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(DistGatError)
    async def of_model(request: Request, error: DistGatError) -> Response:
        return problem_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def of_body(request: Request, error: RequestValidationError) -> Response:
        return problem_of_fields(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def of_path(request: Request, error: HTTPException) -> Response:
        if error.status_code == BAD_REQUEST:
            return not_json(str(error.detail)).response()
        paths = ", ".join(sorted(app.openapi()["paths"]))
        what = f"{request.method} {request.url.path[:80]}: {error.detail}"
        return Problem(error.status_code, what, f"one of {paths}", "see /docs").response()

    @app.exception_handler(Exception)
    async def of_nobody(request: Request, error: Exception) -> Response:
        # the server's log has the traceback
        return Problem(BROKEN, "the server failed at this request", None, "look into the server's log").response()


async def watch(settings: ServerSettings, live: LiveModel, metrics: ServerMetrics) -> None:
    """Put each new model of the folder in place, and end where the process that started this replica is gone."""
    parent, told = parent_process(), None
    while True:
        await asyncio.sleep(settings.watch_s or 1.0)
        if parent is not None and not parent.is_alive():
            os.kill(os.getpid(), signal.SIGTERM)
        if settings.watch_s is not None and live.has_another():
            try:
                await live.reload()
            except StorageError:
                if live.trouble != told:  # and not every time that it looks
                    told = live.trouble
                    metrics.reload_failures.inc()
                    log.error("the model of before goes on: %s", told)


def answered(model: OpenedModel, **fields: Any) -> Response:
    return Response(to_json({"model": model.digest, **fields}), media_type="application/json")


def items_by_user(answer: Answer) -> list[dict[str, Any]]:
    rows = answer.table().drop("user_id").to_dicts()
    ends = np.cumsum(num_items(answer.best)).tolist()
    starts = [0, *ends[:-1]]
    return [
        {"user_id": user, "items": rows[start:end]}
        for user, start, end in zip(answer.users.to_list(), starts, ends, strict=True)
    ]


def num_items(best: RunningTopK) -> np.ndarray:
    """int64 [n]: of each user."""
    return (best.items_UK >= 0).sum(axis=1)
