"""`prepare` against DGL's `partition_graph` on 10 M interactions: `python -m benchmarks.partition`.

Both sides start from the same Parquet table of user and item numbers and end with 4 parts on disk, each in a process
of its own, in turn; seconds leave out imports. dist_gat also validates and splits, maps external IDs and writes
checksums. DGL gets a ready homogeneous graph of both directions. Peak memory is the process's resident maximum,
less what it had after its imports.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl
import torch

from benchmarks import harness
from benchmarks.graph import power_law_pairs
from benchmarks.harness import OURS, Line
from dist_gat.base.peak_memory import peak_memory
from dist_gat.config.data_sections import DataConfig, SplitConfig
from dist_gat.config.sections import PartsConfig
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.sampling.dgl import dgl

NUM_PARTS = 4
# our method, DGL's, the bars of speed and of memory
PAIRS = {"range": ("random", 3.0, 2.0), "metis": ("metis", 1.0, None)}
PEER = "DGL partition_graph"


def prepare(table: Path, method: str, target: Path) -> None:
    data = DataConfig(
        path=str(table.parent),
        interactions=table.name,
        split=SplitConfig(method="random", valid_ratio=0.0, test_ratio=0.0),
        prepared=str(target),
    )
    prepare_dataset("benchmark", data, PartsConfig.model_validate({"num_parts": NUM_PARTS, "method": method}), seed=0)


def partition(table: Path, method: str, target: Path) -> None:
    pairs = pl.read_parquet(table)
    users = torch.from_numpy(pairs["user_id"].to_numpy())
    items = torch.from_numpy(pairs["item_id"].to_numpy()) + int(users.max()) + 1
    graph = dgl.graph((torch.cat([users, items]), torch.cat([items, users])))
    dgl.distributed.partition_graph(graph, "benchmark", NUM_PARTS, str(target), part_method=method)


def measure(side: str, method: str, table: Path) -> tuple[float, int]:
    """Seconds and extra bytes of one side, in a process of its own."""
    seconds, extra_bytes = harness.run_alone("benchmarks.partition", "--run", side, method, table)
    return float(seconds), int(extra_bytes)


def run(side: str, method: str, table: Path) -> None:
    before = harness.start_peak()
    with tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as folder:
        started = time.perf_counter()
        (prepare if side == OURS else partition)(table, method, Path(folder) / "parts")
        seconds = time.perf_counter() - started
    print(seconds, peak_memory() - before)


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=3)
    parser.add_argument("--run", nargs=3, metavar=("SIDE", "METHOD", "TABLE"), help=argparse.SUPPRESS)
    parser.add_argument("--methods", nargs="*", choices=PAIRS, default=list(PAIRS), help="of ours")
    arguments = parser.parse_args()
    if arguments.run:
        side, method, table = arguments.run
        run(side, method, Path(table))
        return
    results: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as folder:
        table = Path(folder) / "interactions.parquet"
        half = arguments.nodes // 2
        power_law_pairs(half, half, arguments.interactions).write_parquet(table)
        for ours in arguments.methods:
            theirs, speed_bar, memory_bar = PAIRS[ours]
            runs: dict[str, list[tuple[float, int]]] = {OURS: [], PEER: []}
            for _ in range(arguments.repeats):
                runs[OURS].append(measure(OURS, ours, table))
                runs[PEER].append(measure(PEER, theirs, table))
            seconds = {name: [s for s, _ in values] for name, values in runs.items()}
            peaks = {name: statistics.median(b for _, b in values) for name, values in runs.items()}
            for name in runs:
                speed = arguments.interactions / statistics.median(seconds[name])
                print(f"{ours}: {name}: {speed:,.0f} interactions/s, {peaks[name] / 1e9:.2f} GB")
            results += harness.compare(f"prepare, {ours}", seconds, speed_bar, None)
            if memory_bar is not None:
                results.append(harness.compare_peaks(f"prepare, {ours}, peak memory", peaks, memory_bar))
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
