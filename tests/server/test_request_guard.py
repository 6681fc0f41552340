"""What the guard refuses before a request is understood."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from dist_gat.server.problem import TOO_MANY, Problem
from dist_gat.server.request_guard import RequestGuard
from dist_gat.server.server_settings import ServerSettings


@pytest.mark.parametrize("is_full", [True, False])
def test_a_full_queue_refuses_what_would_be_searched_for_before_it_is_parsed(is_full: bool) -> None:
    met: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        met.append(scope["path"])
        assert (await receive())["body"] == b"no JSON"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def need_room() -> None:
        if is_full:
            raise Problem(TOO_MANY, "8 users wait already", "at most 8", "come again in 1 s", {"Retry-After": "1"})

    async def ask(path: str) -> httpx.Response:
        guard = RequestGuard(app, ServerSettings(model=Path("model")), need_room)
        transport = httpx.ASGITransport(guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, content=b"no JSON")

    searched, others = ["/recommend", "/score", "/similar"], ["/explain", "/reload"]
    found = {path: asyncio.run(ask(path)) for path in searched + others}
    assert [found[path].status_code for path in searched] == [429 if is_full else 200] * 3
    assert [found[path].status_code for path in others] == [200, 200]
    assert met == (others if is_full else searched + others)
    if is_full:
        assert found["/score"].headers["retry-after"] == "1"
