"""Two ranks that sample and fetch features from two parts, against DistDGL: `python -m benchmarks.dist_dgl`.

A graph of 200 k nodes and 2 M interactions, cut into the same two parts for both sides, 64 input features of every
node. Each rank draws 1,024 of its own nodes a batch, fan-out 10,10, and fetches the features of all sources, half of
which lie on the other rank. Ours are two local workers that exchange everything over their process group, one thread
each, with the loaders' prefetch as in training. They run with three caches: none, one that holds a fifth of the other
rank's features by degree, and the default, which holds all of them on a graph of this size. The number of streams is
the default, which is also compared with one stream. DistDGL is two servers and two trainers on this machine, one server
a part, without shared memory, as between hosts; its `DistNodeDataLoader` samples in the trainer's process.

The sides take turns, each run in processes of its own. A rate is the batches of both ranks over the time of the slower
one. A run of DistDGL that does not end is reported and repeated.
"""

from __future__ import annotations

import os
import queue
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch

from benchmarks import harness
from benchmarks.graph import prepared_graph
from benchmarks.harness import OURS
from benchmarks.step import NodeBlocks
from dist_gat.base.quiet import silent
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config, SamplingConfig
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.kernels.copy_rows import copy_rows, take_rows
from dist_gat.kernels.large_pages import large_zeros
from dist_gat.launcher.host import cores
from dist_gat.launcher.launch import run_job
from dist_gat.sampling.dgl import dgl
from dist_gat.sampling.graph_store import GraphStore, open_store
from dist_gat.sampling.loader import open_loader, open_streams, take_turns
from dist_gat.sampling.sampler import gather_features

FANOUTS, SEEDS, COLUMNS, RANKS = [10, 10], 1024, 64, 2
WARM_UP, BATCHES = 5, 80
NEEDED_OF = 8  # batches whose minimum and median core time are printed
BAR, STREAMS_BAR = 5.0, 1.0
PEER, DEFAULT, ONE_STREAM = "DistDGL 1.1.3", "default cache", "one stream"
WAIT_S, ATTEMPTS = 90, 6
SHARED_MEMORY = Path("/dev/shm")


class NodeBlocksWithFeatures(NodeBlocks):
    def sample(self, g: GraphStore, seeds: torch.Tensor, exclude_eids: None = None) -> Any:
        nodes, blocks = super().sample(g, seeds)
        return gather_features(g, nodes.numpy()), blocks


def our_rate(config: Config, worker: Worker) -> dict[str, Any]:
    """Batches a second of both ranks."""
    prepared = open_prepared(config.data.prepared)
    cache_bytes = config.sampling.cache_bytes
    store = open_store(prepared, worker.sampling, "exchange", cache_bytes)
    assert store.transport.exchanges
    starts = prepared.ranges.starts
    own = own_nodes(int(starts[worker.rank]), int(starts[worker.rank + 1]))
    streams = open_streams(store, config.sampling.num_streams, config.launch.timeout_s)
    seconds = torch.zeros(RANKS, dtype=torch.float64)
    seconds[worker.rank] = time_batches(in_turn(streams, own), worker.control.barrier)
    rate = RANKS * BATCHES / float(worker.control.sum(seconds).max())
    needed = needed_core_seconds(store, own, worker)
    found: dict[str, Any] = {"rate": rate}
    for name, pick in (("least", min), ("usual", statistics.median)):
        picked = torch.tensor([pick(values) for values in needed.values()], dtype=torch.float64)
        found[name] = dict(zip(needed, (worker.control.sum(picked) / RANKS).tolist(), strict=True))
    return found


def needed_core_seconds(store: GraphStore, own: torch.Tensor, worker: Worker) -> dict[str, list[float]]:
    """Core seconds of the least work of a batch by kind, for one rank, one value for each of NEEDED_OF batches.

    rows: local and cached rows are copied once; the others are copied by their owner, sent through the process group's
    sockets, and copied to their places; all of this in large pages that exist already. collectives: the other
    collectives of a batch, with empty messages. sampling: ours with all parts read in place, so without requests; it
    includes numbering the nodes.
    """
    seconds: dict[str, list[float]] = {"rows": [], "sampling": [], "collectives": []}
    of_types = own_rows(store.prepared.parts[worker.rank])
    features = np.concatenate(of_types, out=large_zeros((sum(map(len, of_types)), COLUMNS), np.float32))
    random, alone = np.random.default_rng(worker.rank), open_store(store.prepared, Channel("alone"), "auto")
    for first in range(0, NEEDED_OF * SEEDS, SEEDS):
        seeds, channel = own[first : first + SEEDS], store.channel
        with mock.patch.object(channel, "start_all_to_all", wraps=channel.start_all_to_all) as collectives:
            NodeBlocksWithFeatures(store, first).sample(store, seeds)
        started = time.process_time()
        nodes, _ = NodeBlocks(alone, first).sample(alone, seeds)
        seconds["sampling"].append(time.process_time() - started)
        is_there = store.ranges.part_of(nodes.numpy()) != worker.rank
        if store.cache is not None:
            is_there &= not store.cache.is_whole
            for table in store.cache.nodes.values():
                is_there &= table.find(nodes.numpy()) < 0
        # each rank receives as many rows as it sends, so that both know the number
        num_there = int(worker.control.sum(torch.tensor([float(is_there.sum())]))) // RANKS
        rows = random.integers(0, len(features), len(nodes))
        counts = [num_there * (rank != worker.rank) for rank in range(RANKS)]
        batch, sent = np.ones((len(nodes), COLUMNS), np.float32), np.ones((num_there, COLUMNS), np.float32)
        places, random_places = np.arange(len(nodes)), random.permutation(num_there)
        worker.control.barrier()
        started = time.process_time()
        take_rows(features, rows[num_there:], batch[num_there:])
        if num_there:
            take_rows(features, rows[:num_there], sent)
            came = channel.all_to_all(torch.from_numpy(sent), counts, counts).numpy()
            copy_rows(came, places[:num_there], batch, random_places)
        seconds["rows"].append(time.process_time() - started)
        worker.control.barrier()
        started = time.process_time()
        # the count includes the collective of the rows
        for _ in range(collectives.call_count - bool(num_there)):
            channel.all_to_all(torch.empty(0), [0] * RANKS, [0] * RANKS)
        seconds["collectives"].append(time.process_time() - started)
    return seconds


def in_turn(streams: Sequence[GraphStore], own: torch.Tensor) -> Iterator[Any]:
    """Batches of the streams, each with every n-th batch of the seeds, as `load_batches` has them for seed edges."""
    loaders = []
    for number, store in enumerate(streams):
        seeds = own.view(-1, SEEDS)[number :: len(streams)].flatten()
        loaders.append(open_loader(store, seeds, NodeBlocksWithFeatures(store), prefetch=True, batch_size=SEEDS))
    return take_turns(loaders)


def own_nodes(first: int, last: int) -> torch.Tensor:
    """Seed nodes for all batches, of the nodes [first, last)."""
    picked = np.random.default_rng(first).permutation(np.arange(first, last))[: (WARM_UP + BATCHES) * SEEDS]
    assert len(picked) == (WARM_UP + BATCHES) * SEEDS, "too few nodes for all batches: give more --nodes"
    return torch.from_numpy(picked)


def time_batches(batches: Any, meet: Callable[[], Any]) -> float:
    for _ in range(WARM_UP):
        next(batches)
    meet()
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return time.perf_counter() - started


def write_dgl_parts(prepared: PreparedGraph, folder: Path) -> None:
    """The same graph, features and parts as DistDGL reads them."""
    degree = np.concatenate([np.diff(part.indptr) for part in prepared.parts])
    dst = np.repeat(np.arange(prepared.ranges.num_nodes), degree)
    src = np.concatenate([np.asarray(part.indices, dtype=np.int64) for part in prepared.parts])
    graph = dgl.graph((src, dst), num_nodes=prepared.ranges.num_nodes)
    graph.ndata["features"] = torch.cat([torch.from_numpy(rows) for part in prepared.parts for rows in own_rows(part)])
    part_of_node = torch.from_numpy(prepared.ranges.part_of(np.arange(prepared.ranges.num_nodes)))
    # the only way to make DGL use our parts
    dgl.distributed.partition.random_choice = lambda num_parts, num_nodes: part_of_node.numpy()
    with silent():
        dgl.distributed.partition_graph(graph, "graph", RANKS, str(folder), part_method="random")


def own_rows(part: Any) -> list[np.ndarray]:
    """Features in the order of the part's node IDs."""
    return [np.array(part.features[kind]) for kind in ("user", "item")]


def wait_until_listening(ports: list[int]) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        if listening.issuperset(ports):
            return
        time.sleep(0.2)
    raise PeerError(f"no server listens on the ports {ports} after {WAIT_S} s")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def be_a_machine(number: int) -> None:
    """Name DistDGL's shared features after this rank.

    Both ranks use one name, so on one machine the second server would overwrite the features of the first.
    """
    kvstore = dgl.distributed.kvstore
    empty = kvstore.empty_shared_mem
    kvstore.empty_shared_mem = lambda name, *arguments: empty(f"machine-{number}-{name}", *arguments)


def serve(server: int, folder: Path) -> None:
    be_a_machine(server)
    os.environ.update({"DGL_ROLE": "server", "DGL_DIST_MODE": "distributed"})
    torch.set_num_threads(1)
    with silent():
        dgl.distributed.DistGraphServer(
            server, str(folder / "hosts.txt"), 1, RANKS, str(folder / "graph.json"), disable_shared_mem=True
        ).start()


def fetch(rank: int, folder: Path, meeting: Any, results: Any) -> None:
    be_a_machine(rank)
    os.environ.update({"DGL_DIST_MODE": "distributed", "DGL_NUM_SERVER": "1", "DGL_NUM_SAMPLER": "0"})
    torch.set_num_threads(1)
    dgl.utils.set_num_threads(1)
    # DGL tells a trainer's part from the host's address, which both trainers share
    dgl.distributed.rpc_client.get_local_machine_id = lambda _: rank
    with silent():
        dgl.distributed.initialize(str(folder / "hosts.txt"))
        book = dgl.distributed.load_partition_book(str(folder / "graph.json"), rank)[0]
        graph = dgl.distributed.DistGraph("graph", gpb=book)
        ids = book.partid2nids(rank)
        loader = dgl.dataloading.DistNodeDataLoader(
            graph, ids[own_nodes(0, len(ids))], dgl.dataloading.NeighborSampler(FANOUTS), batch_size=SEEDS
        )
        batches = (graph.ndata["features"][nodes] for nodes, _, _ in loader)
        results.put(time_batches(batches, meeting.wait))
        meeting.wait()
        dgl.distributed.exit_client()


class PeerError(RuntimeError):
    """A run of DistDGL that gave no number."""


def dgl_rate(folder: Path) -> float:
    """Batches a second of both ranks, from the first run that ends."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return RANKS * BATCHES / max(dgl_seconds(folder))
        except PeerError as err:
            print(f"DistDGL, attempt {attempt} of {ATTEMPTS}: {err}", flush=True)
    raise PeerError(f"DistDGL came to no end in {ATTEMPTS} attempts")


def results_of(trainers: list[BaseProcess], results: Any) -> list[float]:
    """What every trainer measured. Raises `PeerError` where one ends before, or takes too long."""
    found: list[float] = []
    end = time.monotonic() + WAIT_S
    while len(found) < len(trainers):
        try:
            found.append(results.get(timeout=1))
        except queue.Empty:
            codes = [trainer.exitcode for trainer in trainers]
            if any(codes) or time.monotonic() > end:
                raise PeerError(f"its trainers gave {len(found)} numbers and have the exit codes {codes}") from None
    return found


def dgl_seconds(folder: Path) -> list[float]:
    context = get_context("spawn")
    # new ports, because those of an earlier run may still be closing
    ports = [free_port() for _ in range(RANKS)]
    (folder / "hosts.txt").write_text("".join(f"127.0.0.1 {port}\n" for port in ports))
    meeting, results = context.Barrier(RANKS), context.Queue()
    shared_before = set(SHARED_MEMORY.iterdir())
    servers = [context.Process(target=serve, args=(server, folder), daemon=True) for server in range(RANKS)]
    trainers: list[BaseProcess] = [
        context.Process(target=fetch, args=(rank, folder, meeting, results), daemon=True) for rank in range(RANKS)
    ]
    try:
        for server in servers:
            server.start()
        # a trainer that connects too early waits forever
        wait_until_listening(ports)
        for trainer in trainers:
            trainer.start()
        return results_of(trainers, results)
    finally:
        for process in (*trainers, *servers):
            # the trainers were not started where no server listened
            if process.pid is not None:
                process.join(2)
                process.kill()
        # shared memory that DGL leaves behind would stop the next run
        for leftover in set(SHARED_MEMORY.iterdir()) - shared_before:
            if "kvdata" in leftover.name:
                leftover.unlink()


def recipe(prepared: PreparedGraph, run: str, cache_bytes: int, num_streams: int) -> Config:
    return parse_config(
        {
            "name": "fetching",
            "run": run,
            "data": {"interactions": "none", "prepared": str(prepared.folder)},
            "parts": {"num_parts": RANKS},
            "sampling": {"access": "exchange", "cache_bytes": cache_bytes, "num_streams": num_streams},
            "launch": {"launcher": "local", "num_workers": RANKS, "threads_per_worker": 1},
        }
    )


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=9, on_graph=False)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--interactions", type=int, default=2_000_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as folder,
        prepared_graph(arguments.nodes, arguments.interactions, RANKS, "hash", COLUMNS) as prepared,
    ):
        write_dgl_parts(prepared, Path(folder))
        of_other_rank = 4 * COLUMNS * prepared.ranges.num_nodes // RANKS
        default = SamplingConfig()
        ways = {
            "no cache": (0, default.num_streams),
            "a fifth cached": (of_other_rank // 5, default.num_streams),
            DEFAULT: (default.cache_bytes, default.num_streams),
            ONE_STREAM: (default.cache_bytes, 1),
        }
        seconds: dict[str, list[float]] = {name: [] for name in (*ways, PEER)}
        least: dict[str, dict[str, float]] = {}
        usual: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeats):
            for name, (cache_bytes, num_streams) in ways.items():
                config = recipe(prepared, folder, cache_bytes, num_streams)
                found = run_job(our_rate, config, quiet=True)
                seconds[name].append(1 / float(found["rate"]))
                usual[name].append(sum(found["usual"].values()))
                before = least.get(name, found["least"])
                least[name] = {what: min(value, before[what]) for what, value in found["least"].items()}
            seconds[PEER].append(1 / dgl_rate(Path(folder)))
            print({name: f"{1 / values[-1]:.1f} batches/s" for name, values in seconds.items()}, flush=True)
    lines, allowed_ms = [], 1e3 * cores() * statistics.median(seconds[PEER]) / BAR
    for name, of_what in least.items():
        least_s = sum(of_what.values())
        listed = ", ".join(f"{what} {value * 1e3:.1f}" for what, value in of_what.items())
        as_a_rule = f"{1e3 * statistics.median(usual[name]):.1f} as a rule; by the bar {allowed_ms:.1f}"
        print(f"{name}: at least {least_s * 1e3:.1f} ms of a core ({listed}), {as_a_rule}")
        if name != ONE_STREAM:
            times = {OURS: seconds[name], PEER: seconds[PEER]}
            # without our sampler, whose time is no limit of the machine
            ceiling = (least_s - of_what["sampling"]) / cores()
            lines += harness.compare(f"sampling and features, {name}", times, BAR, ceiling)
    (alone,) = harness.compare("", {OURS: seconds[ONE_STREAM], PEER: seconds[PEER]}, BAR, None)
    print(f"{ONE_STREAM}: {alone.ratio:.2f} times {PEER}")
    times = {OURS: seconds[DEFAULT], ONE_STREAM: seconds[ONE_STREAM]}
    line = f"sampling and features, {default.num_streams} streams against one"
    lines += harness.compare(line, times, STREAMS_BAR, None)
    harness.report(lines, arguments.json)


if __name__ == "__main__":
    main()
