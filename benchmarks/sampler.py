"""Our neighbour sampler against DGL's on the same graph: `python -m benchmarks.sampler`.

Both sample two hops of fan-out 10 for 1,024 seeds and build relabelled blocks, in turn, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.graph import prepared_graph
from dist_gat.config import NegativesConfig, SamplingConfig
from dist_gat.dgl import dgl
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.random import Purpose, make_key
from dist_gat.sampling.neighbors import hide_pairs
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.sampling.store import open_store

FANOUTS = [10, 10]


def dgl_graph(prepared: PreparedGraph) -> dgl.DGLGraph:
    part = prepared.parts[0]
    csc = (torch.from_numpy(np.array(part.indptr)), torch.from_numpy(np.array(part.indices, dtype=np.int64)), [])
    return dgl.graph(("csc", csc))


def ours(prepared: PreparedGraph) -> Callable[[np.ndarray, int], int]:
    """A function of (seeds, step) that samples and returns the number of edges."""
    store = open_store(prepared, Channel("benchmark"), "auto")
    sampler = SeedBlockSampler(store, SamplingConfig(fanouts=FANOUTS), NegativesConfig(), 1024, 0, False)
    nothing = hide_pairs(np.zeros((0, 2), dtype=np.int64))

    def sample(seeds: np.ndarray, step: int) -> int:
        relabeller = sampler.relabeller(len(seeds))
        relabeller.add(seeds)
        _, _, blocks = sampler.sample_blocks(store, relabeller, (int(make_key(0, Purpose.NEIGHBORS, step)), nothing))
        return sum(int(block.count_D.sum()) for block in blocks)

    return sample


def theirs(prepared: PreparedGraph) -> Callable[[np.ndarray, int], int]:
    graph, sampler = dgl_graph(prepared), dgl.dataloading.NeighborSampler(FANOUTS)

    def sample(seeds: np.ndarray, step: int) -> int:
        _, _, blocks = sampler.sample_blocks(graph, torch.from_numpy(seeds))
        return sum(block.num_edges() for block in blocks)

    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=41)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dgl.utils.set_num_threads(1)
    seconds: dict[str, list[float]] = {"dist_gat": [], "dgl": []}
    edges: dict[str, int] = {}
    with prepared_graph(arguments.nodes, arguments.interactions) as prepared:
        samplers = {"dist_gat": ours(prepared), "dgl": theirs(prepared)}
        rng = np.random.default_rng(1)
        for step in range(arguments.repeats + 3):
            seeds = rng.choice(prepared.ranges.num_nodes, arguments.seeds, replace=False)
            for name, sample in samplers.items():
                started = time.perf_counter()
                edges[name] = sample(seeds, step)
                if step >= 3:
                    seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        low, median, high = min(values), statistics.median(values), max(values)
        print(f"{name:9} {1e3 * median:7.2f} ms a batch ({1e3 * low:.2f} to {1e3 * high:.2f}), {edges[name]:,} edges")
    ratios = [theirs / ours for ours, theirs in zip(seconds["dist_gat"], seconds["dgl"], strict=True)]
    print(f"ratio of speeds, ours over DGL's, median of pairs: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
