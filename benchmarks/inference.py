"""Layer-wise inference of all nodes over all their neighbours against DGL: `python -m benchmarks.inference`.

Two `additive` layers of 4 heads on 64 features, the standard graph. The peer does what DGL's own examples of
layer-wise inference do: layer by layer, a `MultiLayerFullNeighborSampler` through DGL's `DataLoader` in chunks of
nodes, `GATConv` on each chunk.

The ceiling is the time in which the machine copies what must move: in each layer a source row for every edge, and the
nodes' rows once read and once written.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.graph import dgl_graph, prepared_graph
from benchmarks.harness import OURS, Step
from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import EvaluateConfig
from dist_gat.evaluate.inference import infer_representations
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.nn.recommender import build_recommender
from dist_gat.sampling.dgl import DataLoader, dgl
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.ownership import share_nodes

SIZE, HEADS, LAYERS = 64, 4, 2
CHUNK = 8192
DGL = "DGL GATConv"
SPEED_BAR, MEMORY_BAR = 3.0, 2.0


def our_inference(prepared: PreparedGraph, _: int) -> Step:
    owned = share_nodes(prepared.ranges, 1, 0)
    config = ModelConfig(embedding_size=SIZE, scoring="additive", num_heads=HEADS, residual=False, combination="last")
    model = build_recommender(config, LAYERS, {}, owned, Channel("rows"), 0)
    store = open_store(prepared, Channel("sampling"), "auto")
    edge_chunk = EvaluateConfig().edge_chunk
    return lambda: infer_representations(model, store, edge_chunk)


def dgl_inference(prepared: PreparedGraph, threads: int) -> Step:
    graph = dgl_graph(prepared)
    layers = [dgl.nn.GATConv(SIZE, SIZE // HEADS, HEADS, allow_zero_in_degree=True) for _ in range(LAYERS)]
    rows = torch.randn(prepared.ranges.num_nodes, SIZE)
    dgl.utils.set_num_threads(threads)

    @torch.no_grad()
    def step() -> Tensor:
        below = rows
        for layer in layers:
            above = torch.empty_like(below)
            sampler = dgl.dataloading.MultiLayerFullNeighborSampler(1)
            loader = DataLoader(graph, torch.arange(graph.num_nodes()), sampler, batch_size=CHUNK)
            loader.cpu_affinity_enabled = True
            for sources, seeds, (block,) in loader:
                above[seeds] = layer(block, below[sources]).flatten(1)
            below = above
        return below

    return step


SIDES = {OURS: our_inference, DGL: dgl_inference}


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", nargs=2, metavar=("SIDE", "PREPARED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        side, folder = arguments.peak_of
        print(harness.peak_extra_bytes(SIDES[side](open_prepared(folder), arguments.threads), warmup=1))
        return
    keep_freed_memory()
    with prepared_graph(arguments.nodes, arguments.interactions) as prepared:
        steps = {name: side(prepared, arguments.threads) for name, side in SIDES.items()}
        seconds = harness.seconds_in_turn(steps, arguments.repeats, warmup=1)
        for name, values in seconds.items():
            print(f"{name}: {np.median(values):.2f} s")
        least_bytes = LAYERS * 4 * SIZE * (2 * arguments.interactions + 2 * prepared.ranges.num_nodes)
        results = harness.compare(
            "layer-wise inference", seconds, SPEED_BAR, least_bytes / harness.copy_bandwidth()
        )  # fmt: skip
        alone = ("benchmarks.inference", "--threads", arguments.threads, "--peak-of")
        peaks = {name: int(harness.run_alone(*alone, name, prepared.folder)[-1]) for name in SIDES}
    results.append(harness.compare_peaks("layer-wise inference, peak memory", peaks, MEMORY_BAR))
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
