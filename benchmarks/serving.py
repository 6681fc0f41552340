"""How fast a model is served: `python -m benchmarks.serving`.

Makes a model of Gowalla's size with random weights, 40,981 items of 256 + 1,024 columns, and asks it: over HTTP on
loopback at a fixed rate and in batches, and in this process against implicit's `recommend` and faiss' IndexFlatIP on
the same vectors, where these are installed. Lists are compared too. `--run` takes a trained run instead.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix

from benchmarks.graph import power_law_pairs
from benchmarks.harness import OURS, SETTLE_S, Line, Step, compare, copy_bandwidth, new_parser, report, seconds_in_turn
from dist_gat import api
from dist_gat.config.files import parse_config
from dist_gat.evaluate.inference import infer_representations
from dist_gat.exchange.worker import lone_worker
from dist_gat.filters.blend import Blend
from dist_gat.graph.part import open_prepared
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.graph_store import open_store
from dist_gat.serve.opened_model import OpenedModel
from dist_gat.serve.saved_model import save_model

K, BATCH, HISTORY, CONNECTIONS = 20, 128, 50, 64
BAR_PEER = 1.0


def make_run(folder: Path, arguments: argparse.Namespace) -> Path:
    """A run whose model has random weights, on power-law interactions. Returns its folder."""
    (folder / "raw").mkdir(parents=True)
    pairs = power_law_pairs(arguments.users, arguments.items, arguments.interactions)
    pairs.write_csv(folder / "raw" / "interactions.csv")
    config = parse_config({
        "name": "serving", "run": str(folder / "run"),
        "data": {"path": str(folder / "raw"), "interactions": "interactions.csv",
                 "split": {"valid_ratio": 0, "test_ratio": 0}, "prepared": str(folder / "prepared")},
        "parts": {"num_parts": 4, "method": "hash"}, "sampling": {"fanouts": [10, 10]},
        "model": {"embedding_size": arguments.embedding_size, "scoring": "degree", "residual": False,
                  "combination": "mean", "decoder": {"kind": "cosine", "popularity": True}},
    })  # fmt: skip
    api.prepare(config)
    prepared, worker = open_prepared(config.data.prepared), lone_worker()
    store, relation = open_store(prepared, worker.sampling, "auto"), prepared.schema.relations[0]
    model = build_recommender(config.model, 2, prepared.layouts, store.ownership, worker.rows, 0)
    depths: list[torch.Tensor] = []
    representation_OR = infer_representations(model, store, config.evaluate.edge_chunk, depths=depths)
    rows_OR = model.ranking_rows(representation_OR, store.ownership.own_nodes, store, relation)
    spectral_Ok = torch.randn(len(rows_OR), arguments.spectral_rank) / arguments.spectral_rank**0.5
    blend = Blend(spectral_Ok, rows_OR[:, :0], None, spectral_weight=1.0, scale_O1=torch.ones(len(rows_OR), 1))
    save_model(config, model, rows_OR, blend, store, relation, worker, depths=depths)
    (config.run_folder / "config.yaml").write_bytes((config.run_folder / "model" / "config.yaml").read_bytes())
    return config.run_folder


class Server(NamedTuple):
    url: str
    pid: int


@contextmanager
def served(run: Path, *options: str) -> Iterator[Server]:
    """A server of the run; requests wait until it is ready."""
    command = [sys.executable, "-m", "dist_gat.cli.main", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().partition(" at ")[2].partition(";")[0]
        try:
            yield Server(url, process.pid)
        finally:
            process.terminate()


Ask = Callable[[httpx.AsyncClient, int], Awaitable[httpx.Response]]


async def at_a_rate(url: str, ask: Ask, rate: float, seconds: float) -> list[float]:
    """Seconds of each answer, to requests that are sent by the clock whether or not others were answered."""
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=CONNECTIONS)) as client:
        for number in range(10):
            await ask(client, number)
        started = time.perf_counter()

        async def one(number: int) -> float:
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            sent = time.perf_counter()
            (await ask(client, number)).raise_for_status()
            return time.perf_counter() - sent

        return list(await asyncio.gather(*(one(number) for number in range(int(rate * seconds)))))


async def as_many_as_it_can(url: str, ask: Ask, clients: int, seconds: float) -> float:
    """Answers a second to clients that ask again as soon as they are answered."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await ask(client, 0)
        started, answers = time.perf_counter(), 0

        async def keep_asking(first: int) -> None:
            nonlocal answers
            number = first
            while time.perf_counter() - started < seconds:
                (await ask(client, number)).raise_for_status()
                answers, number = answers + 1, number + clients

        await asyncio.gather(*(keep_asking(first) for first in range(clients)))
        return answers / (time.perf_counter() - started)


def over_http(run: Path, model: OpenedModel, arguments: argparse.Namespace) -> None:
    users, items = (index.external_ids.to_list() for index in (model.ranker.users, model.ranker.items))
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(users), (4096, BATCH))
    histories = rng.integers(0, len(items), (256, HISTORY))

    def for_users(num: int) -> Ask:
        def ask(client: httpx.AsyncClient, number: int) -> Awaitable[httpx.Response]:
            asked = [users[at] for at in chosen[number % len(chosen), :num].tolist()]
            return client.post("/recommend", json={"users": asked, "k": K})

        return ask

    def for_new(client: httpx.AsyncClient, number: int) -> Awaitable[httpx.Response]:
        met = [items[at] for at in np.unique(histories[number % len(histories)]).tolist()]
        return client.post("/recommend", json={"new_users": [{"items": met}], "k": K})

    with served(run, "--replicas", str(arguments.replicas)) as server:
        url = server.url
        for what, ask, rate in (
            ("one user", for_users(1), arguments.rate), (f"a new user, {HISTORY} items", for_new, arguments.rate / 5)
        ):  # fmt: skip
            taken = sorted(asyncio.run(at_a_rate(url, ask, rate, arguments.seconds)))
            print(f"{what}, {rate:g} requests/s: p50 {1e3 * statistics.median(taken):.1f} ms, "
                  f"p99 {1e3 * taken[int(0.99 * len(taken))]:.1f} ms, of {len(taken):,}")  # fmt: skip
        answers = asyncio.run(as_many_as_it_can(url, for_users(BATCH), 2, arguments.seconds))
        print(f"requests of {BATCH} users, two clients: {BATCH * answers:,.0f} users/s")
        answers = asyncio.run(as_many_as_it_can(url, for_users(1), 32, arguments.seconds))
        print(f"requests of one user, 32 clients: {answers:,.0f} users/s")


def vectors(model: OpenedModel, kind: str) -> np.ndarray:
    """float32 [n, R + k], C-contiguous: of all nodes of a type, in the order of their IDs."""
    index = model.ranker.users if kind == model.saved.relation.source else model.ranker.items
    return np.ascontiguousarray(model.ranker.rows_of_users(index.nodes))


def seen_by(model: OpenedModel) -> csr_array:
    """float32 [users, items]: what each has met, in the order of their IDs."""
    ranker = model.ranker
    pairs = np.concatenate(ranker.met_by(ranker.users.nodes))
    place, item = pairs[:, 0], ranker.items.places_of(pairs[:, 1])
    shape = (len(ranker.users.nodes), len(ranker.items.nodes))
    return csr_array((np.ones(len(pairs), np.float32), (place, item)), shape=shape)


def peers(model: OpenedModel) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """By name: from places of users to places of their K best new items."""
    users_UR, items_IR, seen_UI = vectors(model, "user"), vectors(model, "item"), csr_matrix(seen_by(model))
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if importlib.util.find_spec("implicit"):
        from implicit.cpu.als import AlternatingLeastSquares

        als = AlternatingLeastSquares(factors=users_UR.shape[1], num_threads=torch.get_num_threads())
        als.user_factors, als.item_factors = users_UR, items_IR
        found["implicit recommend"] = lambda at: als.recommend(at, seen_UI[at], N=K)[0]
    if importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index, most_seen = faiss.IndexFlatIP(items_IR.shape[1]), int(np.diff(seen_UI.indptr).max())
        index.add(items_IR)

        def search(at: np.ndarray) -> np.ndarray:
            # it can't leave out what each user has seen, so it looks for as many more
            _, near = index.search(users_UR[at], K + most_seen)
            rows = [row[~np.isin(row, seen_UI[one].indices)][:K] for row, one in zip(near, at, strict=True)]
            return np.stack(rows)

        found["faiss IndexFlatIP"] = search
    return found


def in_process(model: OpenedModel, arguments: argparse.Namespace) -> list[Line]:
    others = peers(model)
    nodes, items = model.ranker.users.nodes, model.ranker.items

    def ours(at: np.ndarray) -> np.ndarray:
        return items.places_of(model.ranker.best(model.ranker.known_users(nodes[at]), K).items_UK)

    rng, lines = np.random.default_rng(1), []
    size = sum(rows.nbytes for rows in model.ranker.rows(0)) / len(model.ranker.rows(0)[0]) * len(items.nodes)
    for what, num in (("one user", 1), (f"{BATCH} users", BATCH)):
        at = rng.choice(len(nodes), num, replace=False)
        expected = ours(at)
        for name, other in others.items():
            same = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(expected, other(at), strict=True)])
            print(f"{what}: {100 * same:.2f} % of the items are those of {name}")
        steps: dict[str, Step] = {OURS: lambda at=at: ours(at)}
        steps |= {name: lambda at=at, other=other: other(at) for name, other in others.items()}
        seconds = seconds_in_turn(steps, arguments.repeats, settle_s=SETTLE_S)
        for name, taken in seconds.items():
            print(f"{what}, {name}: {1e3 * statistics.median(taken):.1f} ms")
        least = size / (copy_bandwidth() / 2) if num == 1 else None
        lines += compare(f"top-{K}, {what}", seconds, BAR_PEER, least)
    return lines


def add_size(parser: argparse.ArgumentParser) -> None:
    """The options of `make_run`, Gowalla's by default, and the run to take instead."""
    for name, default in (
        ("users", 29_858), ("items", 40_981), ("interactions", 1_027_370), ("embedding-size", 256),
        ("spectral-rank", 1024), ("replicas", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--run", type=Path, help="a trained run, in place of one with random weights")


def main() -> None:
    parser = new_parser(__doc__, 9, on_graph=False)
    add_size(parser)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load over HTTP")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as work:
        run = arguments.run or make_run(Path(work), arguments)
        model = api.open(run)
        over_http(run, model, arguments)
        report(in_process(model, arguments), arguments.json)


if __name__ == "__main__":
    main()
