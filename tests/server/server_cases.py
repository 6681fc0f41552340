"""A real server in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_S = 120


@dataclass(frozen=True)
class Running:
    url: str
    process: subprocess.Popen[str]
    client: httpx.Client

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)


@contextmanager
def running_server(run: Path, *options: str, token: str | None = None) -> Iterator[Running]:
    """Serve a run at a free port, and stop it as an operator would; it must end well."""
    command = [sys.executable, "-m", "dist_gat.cli.main", "serve", str(run), "--port", "0", *options]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert " at http://" in line, line + process.stderr.read()
            url = line.partition(" at ")[2].partition(";")[0]
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                wait_until_ready(client)
                yield Running(url, process, client)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, process.stderr.read()
        finally:
            process.kill()


def wait_until_ready(client: httpx.Client) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server did not become ready")


def flat(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(user, item, score, rank) of an answer."""
    return [
        (user["user_id"], item["item_id"], item["score"], item["rank"])
        for user in answer["recommendations"]
        for item in user["items"]
    ]
