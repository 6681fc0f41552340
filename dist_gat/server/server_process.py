"""`serve_model`: the processes of a server: one, or several replicas that share a socket and the pages of the model."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from dist_gat.base.errors import ConfigError
from dist_gat.launcher.stop_signals import on_stop_signals
from dist_gat.serve.saved_model import open_model
from dist_gat.server.server_metrics import FOLDER_VARIABLE
from dist_gat.server.server_settings import ServerSettings, is_loopback
from dist_gat.server.web_app import build_app

MOST_CONNECTIONS, BACKLOG = 1000, 2048
# a replica that is silent for longer is replaced; it is silent while it imports
SECONDS_TO_START = 120


class PromptH11(H11Protocol):
    """Closes a connection where the head of a request does not arrive in `timeout_keep_alive`, which uvicorn would wait
    for without end."""

    waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        has_begun = self.conn.their_state is not h11.IDLE
        if has_begun and self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None
        elif not has_begun and self.waiting is None:
            self.waiting = self.loop.call_later(self.timeout_keep_alive, self.transport.close)


def serve_model(settings: ServerSettings, port: int, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way. tell: hears the address.

    port: 0 for any that is free. Raises `ConfigError`, `StorageError`.
    """
    if settings.token is None and not is_loopback(settings.host):
        raise ConfigError(
            f"--host {settings.host}: other machines reach it, so requests must carry a token; give --token-file FILE, "
            "or leave --host out to serve this machine alone"
        )
    model = open_model(settings.model)
    listening = listen(settings.host, port)
    address = f"http://{settings.host}:{listening.getsockname()[1]}"
    tell(f"{model.manifest['name']}: {settings.model} at {address}; its pages are at {address}/docs")
    # uvicorn's own lines say nothing that a user could act on
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    config = uvicorn.Config(
        partial(build_app, settings), factory=True, workers=settings.replicas, http=PromptH11, ws="none",
        lifespan="on", log_config=None, access_log=False, server_header=False, proxy_headers=False, backlog=BACKLOG,
        limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=settings.drain_s,
        timeout_worker_healthcheck=SECONDS_TO_START, timeout_keep_alive=max(1, round(settings.receive_s)),
    )  # fmt: skip
    # uvicorn raises the signal again when it is done, and it is nobody else's
    with listening, on_stop_signals(lambda: None):
        if settings.replicas == 1:
            uvicorn.Server(config).run([listening])
            return
        with tempfile.TemporaryDirectory(prefix="dist-gat-metrics-") as counters:
            os.environ[FOLDER_VARIABLE] = counters
            Multiprocess(config, [listening]).run()


def listen(host: str, port: int) -> socket.socket:
    """Raises `ConfigError` where the address can't be had."""
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        # asyncio sends at once, without waiting for more to send, where a socket names its protocol
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as err:
        raise ConfigError(f"--host {host} --port {port}: {err}; choose another address or port") from None
    listening.listen(BACKLOG)
    listening.set_inheritable(True)
    return listening
