"""`RequestGuard`: what is refused before a request is understood: strangers, foreign host names, huge and slow bodies,
and what a full queue would refuse. A refusal has to be cheap, for over capacity most of the work is refusals.
`RequestMeter` counts and times every request, refused ones too."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import anyio

from dist_gat.server.bearer_token import carries_token
from dist_gat.server.problem import FORBIDDEN, TIMEOUT, TOO_LARGE, UNAUTHORIZED, Problem
from dist_gat.server.server_settings import ServerSettings, is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
WITHOUT_TOKEN = ("/health/live", "/health/ready")
SEARCHED = ("/recommend", "/score", "/similar")


class RequestGuard:
    """An ASGI application around another. need_room: raises `Problem` where no search finds a place in the queue."""

    def __init__(self, app: App, settings: ServerSettings, need_room: Callable[[], None]) -> None:
        self.app, self.settings, self.need_room = app, settings, need_room

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
        try:
            self.check(str(scope["path"]), headers)
            body = await self.whole_body(receive)
            if scope["path"] in SEARCHED:
                self.need_room()
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        except ConnectionError:
            return
        waiting = [body]

        async def receive_whole() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, receive_whole, send)

    def check(self, path: str, headers: MutableMapping[str, str]) -> None:
        """Raise `Problem` for a request that is refused by its head."""
        token = self.settings.token
        if token is None:
            # a page in a browser may give its own name the address of this machine
            name = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
            if not is_loopback(name):
                raise Problem(
                    FORBIDDEN, f"the server was asked for as {name[:80]!r}", "localhost, 127.0.0.1 or [::1]",
                    "start the server with --token-file to serve under other names",
                )  # fmt: skip
        elif path not in WITHOUT_TOKEN and not carries_token(headers.get("authorization"), token):
            raise Problem(
                UNAUTHORIZED, "no token, or not that of this server", "the header `Authorization: Bearer TOKEN`",
                "ask whoever runs the server for the token of its --token-file", {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.settings.max_body_bytes:
            raise self.too_large()

    async def whole_body(self, receive: Receive) -> Message:
        """One message with the body. Raises `Problem` where it is too large or slow, `ConnectionError` at its end."""
        chunks, size = list[bytes](), 0
        try:
            with anyio.fail_after(self.settings.receive_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self.settings.max_body_bytes:
                        raise self.too_large()
                    if not message.get("more_body"):
                        return {"type": "http.request", "body": b"".join(chunks), "more_body": False}
        except TimeoutError:
            raise Problem(
                TIMEOUT, f"the body did not arrive within {self.settings.receive_s:g} s", "a whole request",
                "send smaller requests, or look after the connection", {"Connection": "close"},
            ) from None  # fmt: skip

    def too_large(self) -> Problem:
        most = self.settings.max_body_bytes
        return Problem(
            TOO_LARGE, f"the body has more than {most:,} bytes", f"at most {most:,} bytes",
            "ask about fewer users or items at a time, or start the server with a larger --max-body-bytes",
            {"Connection": "close"},
        )  # fmt: skip


class RequestMeter:
    """An ASGI application around another. answered: hears of each request the path, the status and the seconds.
    paths: that are told apart."""

    def __init__(self, app: App, paths: Collection[str], answered: Callable[[str, int, float], None]) -> None:
        self.app, self.paths, self.answered = app, paths, answered

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, path = time.perf_counter(), scope["path"] if scope["path"] in self.paths else "other"

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answered(path, int(message["status"]), time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, send_and_count)
