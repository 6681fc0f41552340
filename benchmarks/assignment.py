"""Where nodes go: `python -m benchmarks.assignment`, on 10 M interactions with planted communities and power laws.

Each method runs in a process of its own, over the same arrays, in turn. Edge cut is the share of interactions between
parts, balance the largest part's sum of (degree + 1) over the mean. Peak memory is the process's resident maximum, less
what it had with the arrays loaded; beside it is what `metis_bytes` and `fennel_bytes` say.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.graph import ITEM_EXPONENT, USER_EXPONENT
from benchmarks.harness import OURS, Line
from dist_gat.base.peak_memory import peak_memory
from dist_gat.config.sections import PartsConfig
from dist_gat.graph.assign import Graph, assign_nodes, metis_bytes
from dist_gat.graph.fennel import fennel_bytes

METHODS = ("fennel", "metis", "range", "hash")
NUM_COMMUNITIES, NOISE = 400, 0.3
PEER = "metis"
CUT_BAR = 0.87  # our edge cut may be 1.15 times the peer's


def planted_pairs(num_users: int, num_items: int, num_interactions: int, seed: int = 0) -> np.ndarray:
    """int64 [2, E], sorted: a user draws items of its community by a power law, or with probability NOISE of all.

    Users' activity follows a power law, and sizes of communities fall with the root of their rank.
    """
    rng = np.random.default_rng(seed)
    size = np.arange(1, NUM_COMMUNITIES + 1) ** -0.5
    of_user, of_item = (rng.choice(NUM_COMMUNITIES, n, p=size / size.sum()) for n in (num_users, num_items))
    of_item[:NUM_COMMUNITIES] = np.arange(NUM_COMMUNITIES)
    users, items = (
        np.cumsum(rng.permutation(np.arange(1.0, n + 1) ** -exponent))
        for n, exponent in ((num_users, USER_EXPONENT), (num_items, ITEM_EXPONENT))
    )
    # items by community, and where each community begins and ends among their running weights
    order = np.argsort(of_item, kind="stable")
    running = np.concatenate([[0.0], np.cumsum(np.diff(items, prepend=0.0)[order])])
    bounds = running[np.concatenate([[0], np.cumsum(np.bincount(of_item, minlength=NUM_COMMUNITIES))])]
    pairs = np.zeros(0, dtype=np.int64)
    while len(pairs) < num_interactions:
        count = int(1.2 * (num_interactions - len(pairs))) + 1000
        user = np.searchsorted(users, rng.random(count) * users[-1])
        low, high = bounds[of_user[user]], bounds[of_user[user] + 1]
        place = np.searchsorted(running, low + rng.random(count) * (high - low), side="right") - 1
        own = order[np.minimum(place, num_items - 1)]
        other = np.searchsorted(items, rng.random(count) * items[-1])
        item = np.where(rng.random(count) < NOISE, other, own)
        pairs = np.unique(np.concatenate([pairs, user * num_items + item]))
    pairs = np.sort(rng.permutation(pairs)[:num_interactions])
    return np.stack([pairs // num_items, pairs % num_items])


def run(method: str, num_parts: int, file: Path, num_users: int, num_items: int) -> None:
    """Print seconds, edge cut, balance and bytes."""
    user, item = np.load(file)
    config = PartsConfig.model_validate({"num_parts": num_parts, "method": method})
    # imports, and kernels from their cache
    few = np.bincount(user[:1]), np.bincount(item[:1])
    assign_nodes(Graph([len(x) for x in few], [(0, 1, lambda: [(user[:1], item[:1])])], few, few), config, 0)
    degrees = np.bincount(user, minlength=num_users), np.bincount(item, minlength=num_items)
    graph = Graph([num_users, num_items], [(0, 1, lambda: [(user, item)])], degrees, degrees)
    before = harness.start_peak()
    started = time.perf_counter()
    parts = assign_nodes(graph, config, 0)
    seconds, extra_bytes = time.perf_counter() - started, peak_memory() - before
    degree = np.bincount(np.concatenate([user, item + num_users]), minlength=num_users + num_items)
    load = np.bincount(parts, weights=degree + 1, minlength=num_parts)
    print(seconds, np.mean(parts[user] != parts[item + num_users]), load.max() / load.mean(), extra_bytes)


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=3)
    parser.add_argument("--run", nargs=5, metavar=("METHOD", "PARTS", "FILE", "USERS", "ITEMS"), help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, nargs="*", default=[4, 16])
    arguments = parser.parse_args()
    if arguments.run:
        method, num_parts, file, *size = arguments.run
        run(method, int(num_parts), Path(file), *map(int, size))
        return
    results: list[Line] = []
    half, num_edges = arguments.nodes // 2, arguments.interactions
    said = {"metis": metis_bytes(2 * half, num_edges)}
    with tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as folder:
        file = Path(folder) / "pairs.npy"
        np.save(file, planted_pairs(half, half, num_edges))
        for num_parts in arguments.parts:
            said["fennel"] = fennel_bytes((half, half), num_parts)
            seconds: dict[str, list[float]] = {method: [] for method in METHODS}
            found: dict[str, tuple[float, float]] = {}
            peaks: dict[str, float] = {}
            for _ in range(arguments.repeats):
                for method in METHODS:
                    words = harness.run_alone("benchmarks.assignment", "--run", method, num_parts, file, half, half)
                    taken, cut, balance, peaks[method] = map(float, words)
                    seconds[method].append(taken)
                    found[method] = cut, balance
            for method, (cut, balance) in found.items():
                expected = f", said {said[method] / 1e9:.2f}" if method in said else ""
                print(
                    f"{num_parts} parts, {method}: edge cut {cut:.4f}, balance {balance:.3f}, "
                    f"{statistics.median(seconds[method]):.1f} s, {peaks[method] / 1e9:.2f} GB{expected}"
                )
            name = f"assign, fennel, {num_parts} parts"
            in_turn = {OURS: seconds["fennel"], PEER: seconds[PEER]}
            results += harness.compare(name, in_turn, 2.0, None)
            cut = found[PEER][0] / found["fennel"][0]
            results.append(Line(f"{name}, edge cut", PEER, cut, CUT_BAR, None, (cut, cut)))
            results.append(harness.compare_peaks(f"{name}, memory", {OURS: peaks["fennel"], PEER: peaks[PEER]}, 2.0))
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
