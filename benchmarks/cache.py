"""How well degree predicts which remote rows are requested: `python -m benchmarks.cache`.

The standard graph is cut by `hash`, and one rank of several samples steps of 1,024 seed edges and 1,024 shared
negatives with one and with two hops. It counts the distinct IDs of other ranks that each step requests. Three caches of
equal size are compared: `degree` keeps the remote nodes of highest degree, `best` those that the counted steps request
most often, `learned` those that as many other steps request most often. The lines of results compare `degree` with
`best`. Hindsight flatters `best` where most nodes are requested once or never, so one hop, which requests fewer nodes,
runs five times the steps.

It also prints how many exchanged bytes a step one byte of memory saves: spent on features of `--columns` columns, or on
the adjacency of the same hubs, which saves the request and the answer of a hop.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks import harness
from benchmarks.graph import prepared_graph, ranking_sampler
from benchmarks.harness import Line
from dist_gat.config.sections import SamplingConfig
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.sampling.graph_store import open_store

SEEDS, WORLD_SIZE, FAN_OUT = 1024, 4, 10
STEPS_A_REPEAT = {1: 5, 2: 1}  # by hops
SHARES = (0.01, 0.05, 0.1, 0.2, 0.4)
BAR = 0.9
ID_BYTES = 8


def requests(prepared: PreparedGraph, num_hops: int, num_steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each step of rank 0: the remote sources, and the remote destinations of the outermost block."""
    channel = Channel("benchmark", 0, WORLD_SIZE)
    store = open_store(prepared, channel, "auto")
    sampling = SamplingConfig(fanouts=[FAN_OUT] * num_hops)
    sampler = ranking_sampler(store, sampling.fanouts, SEEDS)
    own_stop = prepared.ranges.starts[store.transport.rank_starts[1]]
    for step in range(num_steps):
        batch = sampler.sample(store, torch.tensor([0, step]))
        nodes = batch.nodes_S.numpy()
        dst = nodes[: batch.blocks[0].num_dst]
        yield nodes[nodes >= own_stop], dst[dst >= own_stop]


def degrees(prepared: PreparedGraph) -> np.ndarray:
    return np.concatenate([np.diff(part.indptr) for part in prepared.parts])


def measure(prepared: PreparedGraph, num_hops: int, num_steps: int, columns: int) -> list[Line]:
    num_nodes = prepared.ranges.num_nodes
    degree = degrees(prepared)
    seen, other, dst_seen = (np.zeros(num_nodes, np.int64) for _ in range(3))
    for step, (nodes, dst) in enumerate(requests(prepared, num_hops, 2 * num_steps)):
        if step < num_steps:
            seen[nodes] += 1
            dst_seen[dst] += 1
        else:
            other[nodes] += 1
    remote = np.arange(prepared.ranges.starts[prepared.ranges.num_parts // WORLD_SIZE], num_nodes)
    by_degree, learned = (remote[np.argsort(-order[remote], kind="stable")] for order in (degree, other))
    best = np.sort(seen[remote])[::-1]
    total = seen.sum()
    print(f"{num_hops} hop(s): {total / num_steps:,.0f} remote rows a step")
    print(
        f"{'rows kept':>10} {'degree':>8} {'learned':>8} {'best':>8} {'saved a byte: features':>24} {'adjacency':>10}"
    )
    lines = []
    for share in SHARES:
        kept = int(share * len(remote))
        hubs = by_degree[:kept]
        rate, best_rate = seen[hubs].sum() / total, best[:kept].sum() / total
        of_features = seen[hubs].sum() * (ID_BYTES + 4 * columns) / num_steps / (4 * columns * kept)
        of_adjacency = dst_seen[hubs].sum() * ID_BYTES * (1 + FAN_OUT) / num_steps / (4 * degree[hubs].sum())
        print(
            f"{share:10.0%} {rate:8.1%} {seen[learned[:kept]].sum() / total:8.1%} {best_rate:8.1%} "
            f"{of_features:24.3f} {of_adjacency:10.3f}"
        )
        line = f"cache hit rate by degree, {num_hops} hop(s), {share:.0%} kept"
        ratio = float(rate / best_rate)
        lines.append(Line(line, "best in hindsight", ratio, BAR, None, (ratio, ratio)))
    return lines


def parse() -> argparse.Namespace:
    parser = harness.new_parser(__doc__, repeats=200)
    parser.add_argument("--columns", type=int, default=32, help="float32 features of a node")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with prepared_graph(arguments.nodes, arguments.interactions, WORLD_SIZE, "hash") as prepared:
        lines = [
            line
            for num_hops, steps in STEPS_A_REPEAT.items()
            for line in measure(prepared, num_hops, steps * arguments.repeats, arguments.columns)
        ]
    harness.report(lines, arguments.json)


if __name__ == "__main__":
    main()
