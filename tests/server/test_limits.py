"""What a server refuses: strangers, huge and slow requests, more than it can do; and how it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from server_cases import Running, flat, running_server
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.cli.main import app

TOKEN = "correct-horse-battery-staple"
RECEIVE_S, MOST_BYTES = 1.0, 20_000


@pytest.fixture(scope="module")
def server(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    file = tmp_path_factory.mktemp("token") / "token.txt"
    file.write_text(f"{TOKEN}\n")
    file.chmod(stat.S_IRUSR)
    limits = ["--max-waiting", "8", "--max-batch", "4", "--receive-s", str(RECEIVE_S)]
    options = ["--token-file", str(file), "--max-body-bytes", str(MOST_BYTES), *limits]
    with running_server(small_run / "run", *options, token=TOKEN) as server:
        yield server


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN])
def test_a_request_without_the_token_learns_nothing(server: Running, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    for path in ("/metrics", "/openapi.json", "/docs", "/none"):
        found = httpx.get(f"{server.url}{path}", headers=headers)
        assert found.status_code == 401
        assert found.headers["www-authenticate"] == "Bearer"
    found = httpx.post(f"{server.url}/recommend", headers=headers, json={"users": ["u1"]})
    assert found.status_code == 401
    assert found.json()["error"]["expected"] == "the header `Authorization: Bearer TOKEN`"
    assert httpx.get(f"{server.url}/health/live", headers=headers).status_code == 200


def test_the_token_lets_in_under_any_name(server: Running) -> None:
    assert server.client.get("/metrics", headers={"host": "recommender.example"}).status_code == 200
    assert server.post("/reload").json()["changed"] is False


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_huge_body_is_refused(server: Running, is_chunked: bool) -> None:
    body = b'{"users": ["' + b"u" * (4 * MOST_BYTES) + b'"]}'
    content = (body[at : at + 1000] for at in range(0, len(body), 1000)) if is_chunked else body
    found = server.client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert found.status_code == 413
    assert "20,000 bytes" in found.json()["error"]["what"]
    assert server.post("/recommend", users=["u1"]).status_code == 200


def test_a_slow_client_is_told_and_holds_up_nobody(server: Running) -> None:
    at = urlsplit(server.url)
    with socket.create_connection((at.hostname, at.port), timeout=30) as slow:
        head = f"POST /recommend HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n"
        slow.sendall(head.encode() + b'{"users"')
        started = time.monotonic()
        assert server.post("/recommend", users=["u1"]).status_code == 200
        assert time.monotonic() - started < RECEIVE_S
        found = read_until(slow, "}")
    assert found.startswith("HTTP/1.1 408")
    assert "did not arrive within 1 s" in found


@pytest.mark.parametrize("is_second", [False, True])
def test_a_head_that_does_not_arrive_ends_the_connection(server: Running, is_second: bool) -> None:
    at = urlsplit(server.url)
    with socket.create_connection((at.hostname, at.port), timeout=30) as slow:
        if is_second:
            slow.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_until(slow, "}").startswith("HTTP/1.1 200")
        slow.sendall(b"GET /health/live HTTP/1.1\r\nHost")
        started = time.monotonic()
        assert slow.recv(10_000) == b""
        assert 0.5 * RECEIVE_S < time.monotonic() - started < 20 * RECEIVE_S


def test_more_than_it_can_do_is_refused_with_a_time_to_come_again(server: Running, small_run: Path) -> None:
    users = ["u1", "u2", "u3"]
    expected = api.recommend(small_run / "run", users, 100).select("user_id", "item_id", "score", "rank").rows()

    async def ask_all() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60, limits=limits) as client:
            asked = [client.post("/recommend", json={"users": users, "k": 100}) for _ in range(300)]
            return list(await asyncio.gather(*asked))

    answers = asyncio.run(ask_all())
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 200:
            assert flat(answer.json()) == expected
        else:
            assert int(answer.headers["retry-after"]) >= 1
            assert "at most 8" in answer.json()["error"]["expected"]
    assert "dist_gat_waiting_users 0.0" in server.client.get("/metrics").text


def test_what_is_under_way_is_finished_when_the_server_stops(small_run: Path) -> None:
    with running_server(small_run / "run") as server:

        async def ask_and_stop() -> httpx.Response:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                asked = asyncio.create_task(client.post("/explain", json={"user": "u3"}))
                await asyncio.sleep(0.1)
                server.process.send_signal(signal.SIGTERM)
                return await asked

        assert asyncio.run(ask_and_stop()).status_code == 200
        assert server.process.wait(60) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "requests must carry a token; give --token-file FILE"),
        (["--host", "::"], "requests must carry a token"),
        (["--token-file", "none.txt"], "none.txt: can't be read"),
        (["--token-file", "short.txt"], "at least 16 ASCII characters"),
    ],
)
def test_what_would_be_unsafe_does_not_start(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("secret")
    result = CliRunner().invoke(app, ["serve", str(small_run / "run"), "--port", "0", *options])
    assert result.exit_code == 1
    assert words in str(result.exception)


def read_until(connection: socket.socket, end: str) -> str:
    """What arrives up to `end`: head and body of an answer may come apart."""
    found = ""
    while not found.endswith(end) and (piece := connection.recv(10_000).decode()):
        found += piece
    return found
