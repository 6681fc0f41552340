"""What a server does that is asked for more than it can: `python -m benchmarks.overload --minutes 10`.

First single users at 50 requests a second, then the capacity with as many clients as keep it busy, then for some
minutes `--times` that many requests a second, sent by the clock. Told and compared: the memory of all processes of the
server in the first and in the last tenth, the p99 of what was accepted against the p99 at 50 requests a second, how
many got 429, and how many failed in any other way. `--save` writes the rows to benchmarks/results/quality.json.

The model is that of `benchmarks.serving`. The queue is short, `--max-waiting`: how long one waits for an answer is how
many wait before one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.harness import memory_of
from benchmarks.quality import Row, print_rows, save_rows
from benchmarks.serving import K, add_size, make_run, served
from dist_gat import api

RATE, CLIENTS, OK, TOO_MANY, LOST = 50.0, 64, 200, 429, 0
TIMES_P99, MOST_GROWTH = 2.0, 1.05
Answered = tuple[int, float]


class Client:
    """One connection, with as little work as may be: it runs on the cores of the server. Opened anew when lost."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, user: object) -> Answered:
        """Status, `LOST` without an answer, and seconds."""
        body = json.dumps({"users": [user], "k": K}).encode()
        head = f"POST /recommend HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        started = time.perf_counter()
        try:
            reader, writer = self.streams or await asyncio.open_connection(self.host, self.port)
            self.streams = reader, writer
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(told.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            return int(told.split(b" ", 2)[1]), time.perf_counter() - started
        except (OSError, ValueError, asyncio.IncompleteReadError):
            self.streams = None
            return LOST, time.perf_counter() - started

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


async def by_the_clock(url: str, users: Sequence[object], rate: float, seconds: float, clients: int) -> list[Answered]:
    """Requests at a rate, by whichever connection is free; one waits for a connection from its time on."""
    free: asyncio.Queue[Client] = asyncio.Queue()
    every = [Client(url) for _ in range(clients)]
    for client in every:
        free.put_nowait(client)
    started, pending, answers = time.perf_counter(), set[asyncio.Task[None]](), list[Answered]()

    async def one(number: int, client: Client) -> None:
        answers.append(await client.ask(users[number % len(users)]))
        free.put_nowait(client)

    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        task = asyncio.create_task(one(number, await free.get()))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    for client in every:
        client.close()
    return answers


async def capacity(url: str, users: Sequence[object], clients: int, seconds: float) -> float:
    """Answers a second to clients that ask again as soon as they are answered."""
    end, answers = time.perf_counter() + seconds, list[Answered]()

    async def keep_asking(client: Client, first: int) -> None:
        number = first
        while time.perf_counter() < end:
            answers.append(await client.ask(users[number % len(users)]))
            number += clients
        client.close()

    await asyncio.gather(*(keep_asking(Client(url), first) for first in range(clients)))
    return sum(status == OK for status, _ in answers) / seconds


async def sample_memory(pid: int, every_s: float, samples: list[int]) -> None:
    """Resident bytes of the server and its children, until cancelled."""
    while True:
        samples.append(memory_of(pid, ["Rss"]))
        await asyncio.sleep(every_s)


def p99(answers: Sequence[Answered]) -> float:
    """Seconds, of what was accepted."""
    taken = sorted(seconds for status, seconds in answers if status == OK)
    return taken[int(0.99 * len(taken))]


async def overload(
    url: str, pid: int, users: Sequence[object], rate: float, seconds: float
) -> tuple[list[Answered], list[int]]:
    samples: list[int] = []
    watch = asyncio.create_task(sample_memory(pid, max(0.2, seconds / 600), samples))
    answers = await by_the_clock(url, users, rate, seconds, CLIENTS)
    watch.cancel()
    return answers, samples


def rows_of(
    command: str, calm: Sequence[Answered], answers: Sequence[Answered], samples: Sequence[int]
) -> list[Row]:  # fmt: skip
    data, counts, tenth = "Gowalla's size, random weights", Counter(status for status, _ in answers), len(samples) // 10
    first, last = (statistics.median(part) / 1e6 for part in (samples[tenth : 2 * tenth], samples[-tenth:]))
    failed = len(answers) - counts[OK] - counts[TOO_MANY]
    calm_ms = 1e3 * p99(calm)
    return [
        Row("overload", data, "p99 of accepted requests, ms", 1e3 * p99(answers), 0.0, f"at {RATE:g} requests/s",
            calm_ms, TIMES_P99 * calm_ms, command),
        Row("overload", data, "memory of the server, MB, last tenth", last, 0.0, "second tenth", first,
            MOST_GROWTH * first, command),
        Row("overload", data, "share with 429", counts[TOO_MANY] / len(answers), 0.0, "", None, 0.0, command),
        Row("overload", data, "failed requests", failed, 0.0, "", None, 0.0, command),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--minutes", type=float, default=10.0, help="over capacity")
    parser.add_argument("--times", type=float, default=2.0, help="of the capacity")
    parser.add_argument("--max-waiting", type=int, default=3, help="users who wait at the server")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the rate, and of the capacity")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        run = arguments.run or make_run(Path(work), arguments)
        users = api.open(run).ranker.users.external_ids.sample(4096, with_replacement=True, seed=0).to_list()
        with served(run, "--replicas", str(arguments.replicas), "--max-waiting", str(arguments.max_waiting)) as server:
            asyncio.run(by_the_clock(server.url, users, RATE, 2.0, CLIENTS))
            calm = asyncio.run(by_the_clock(server.url, users, RATE, arguments.seconds, CLIENTS))
            most = asyncio.run(capacity(server.url, users, arguments.max_waiting, arguments.seconds))
            rate = arguments.times * most
            print(f"capacity {most:,.0f} requests/s; now {rate:,.0f} for {arguments.minutes:g} minutes", flush=True)
            answers, samples = asyncio.run(overload(server.url, server.pid, users, rate, 60 * arguments.minutes))
    print(f"{len(answers):,} answers: {dict(Counter(status for status, _ in answers))}")
    rows = rows_of(f"python -m benchmarks.overload --minutes {arguments.minutes:g}", calm, answers, samples)
    print_rows(rows)
    if arguments.save:
        save_rows(rows)


if __name__ == "__main__":
    main()
