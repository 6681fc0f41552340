"""Our attention layer against DGL's and PyG's on one sampled block: `python -m benchmarks.attention`.

The outermost of two hops of fan-out 10 for 1,024 seeds; 64 features, 4 heads; forward and backward. All sides run on
the same block, with the same number of threads, in one process and with glibc told to keep freed memory, as our workers
do. Each peer also runs in a process without these settings (`benchmarks.peer`).

The ceiling is the time in which the machine copies the bytes that must move: the rows of the sources once in the
forward pass and once in the backward (nothing of their size is kept in between), the gradient of those rows where
there is one, the destinations' rows and their gradient, and the neighbour lists twice.

`--device cuda` times the layers on a GPU, with CUDA events: without DGL, whose release on PyPI is a CPU build. There,
1,024 seeds are too few: launching the kernels takes longer than running them. Use `--seeds 16384`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from benchmarks import harness
from benchmarks.graph import prepared_graph, ranking_sampler
from benchmarks.harness import OURS, Line, Step
from benchmarks.peer import STOCK, StockPeer
from dist_gat.base.random import Purpose, make_key
from dist_gat.config.model_sections import AttentionConfig
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.nn.attention import AttentionLayer
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import dgl
from dist_gat.sampling.graph_store import open_store

FANOUTS = [10, 10]
SIZE, HEADS = 64, 4
DGL_GAT, PYG_GAT, DGL_DOT = "DGL GATConv", "PyG GATConv", "DGL DotGatConv"
# line: our scoring, whether the source rows are learnable, the peers, the bar
LINES = {
    "additive": ("additive", True, (DGL_GAT, PYG_GAT), 4.0),
    "additive, frozen inputs": ("additive", False, (DGL_GAT, PYG_GAT), 5.0),
    "dot": ("dot", True, (DGL_DOT,), 6.0),
}
MEMORY_BAR = 3.0


def outer_block(
    prepared: PreparedGraph, num_seeds: int, fanouts: list[int], edge_columns: Sequence[str] = ()
) -> tuple[np.ndarray, Block]:
    """The nodes of one step's sample, and its first block. edge_columns: what the block has of its edges."""
    store = open_store(prepared, Channel("benchmark"), "auto")
    sampler = ranking_sampler(store, fanouts, num_seeds, edge_columns)
    seeds = np.random.default_rng(1).choice(prepared.ranges.num_nodes, num_seeds, replace=False)
    relabeller = sampler.relabeller(num_seeds)
    relabeller.add(seeds)
    nodes, _, blocks = sampler.sample_blocks(store, relabeller, (int(make_key(0, Purpose.NEIGHBORS, 0)), {}, None))
    return nodes, blocks[0]


def layer_step(name: str, block: Block, scoring: str, learnable: bool) -> Step:
    """Forward and backward pass of one side's layer on the block's device. A call returns the gradient of the rows."""
    torch.manual_seed(0)
    device = block.neighbors_DF.device
    rows_SI = torch.randn(block.num_src, SIZE, device=device, requires_grad=learnable)
    upstream_DO = torch.randn(block.num_dst, SIZE, device=device)
    destination, column = block.mask_DF().nonzero(as_tuple=True)
    source = block.neighbors_DF[destination, column]
    layer: nn.Module
    if name == OURS:
        config = AttentionConfig.model_validate({"scoring": scoring, "num_heads": HEADS, "residual": False})
        layer = AttentionLayer(config, SIZE, SIZE).to(device)
        forward = lambda: layer(rows_SI, block).rows_DO  # noqa: E731
    elif name == PYG_GAT:
        layer = GATConv(SIZE, SIZE // HEADS, HEADS, add_self_loops=False).to(device)
        edge_index = torch.stack([source, destination])
        forward = lambda: layer((rows_SI, rows_SI[: block.num_dst]), edge_index)  # noqa: E731
    else:
        kind = dgl.nn.GATConv if name == DGL_GAT else dgl.nn.DotGatConv
        layer = kind(SIZE, SIZE // HEADS, HEADS, allow_zero_in_degree=True)
        graph = dgl.create_block((source, destination), num_src_nodes=block.num_src, num_dst_nodes=block.num_dst)
        graph.create_formats_()
        forward = lambda: layer(graph, rows_SI).flatten(1)  # noqa: E731

    def step() -> Tensor:
        rows_SI.grad = None
        layer.zero_grad()
        rows_DO = forward()
        rows_DO.backward(upstream_DO)
        # free the gradients, so that memory left from this step does not hide the peak of the next
        gradient, rows_SI.grad = rows_SI.grad, None
        layer.zero_grad()
        return gradient

    return step


def least_bytes(block: Block, learnable: bool) -> int:
    """What any implementation must move; see the top of this file."""
    rows = (3 if learnable else 2) * block.num_src + 2 * block.num_dst
    return 4 * SIZE * rows + 2 * 8 * block.neighbors_DF.numel()


def stock_layer(name: str, file: str, line: str, threads: str) -> Step:
    """The step of a peer on the block in a file, for a process of its own."""
    torch.set_num_threads(int(threads))
    dgl.utils.set_num_threads(int(threads))
    return layer_step(name, Block(*torch.load(file)), *LINES[line][:2])


def compare_line(line: str, block: Block, file: Path, threads: int, repeats: int, bandwidth: float) -> list[Line]:
    scoring, learnable, peers, bar = LINES[line]
    device = block.neighbors_DF.device.type
    if device == "cuda":
        peers = tuple(name for name in peers if name == PYG_GAT)
    steps = {name: layer_step(name, block, scoring, learnable) for name in (OURS, *peers)}
    stock = {
        f"{name}, {STOCK}": StockPeer("benchmarks.attention", "stock_layer", name, file, line, threads)
        for name in peers
        if device == "cpu"
    }
    seconds = harness.seconds_in_turn(steps | stock, repeats, device=device, settle_s=harness.SETTLE_S)
    for peer in stock.values():
        peer.close()
    for name, values in seconds.items():
        quartiles = ", ".join(f"{1e3 * x:.1f}" for x in np.percentile(values, [25, 50, 75]))
        print(f"{line}: {name}: {quartiles} ms (quartiles)")
    return harness.compare(line, seconds, bar, least_bytes(block, learnable) / bandwidth)


def compare_gpu_memory(block: Block) -> Line:
    peaks = {name: harness.peak_extra_gpu_bytes(layer_step(name, block, "additive", True)) for name in (OURS, PYG_GAT)}
    return harness.compare_peaks("additive, peak extra memory", peaks, MEMORY_BAR)


def compare_memory(file: Path, threads: int) -> Line:
    alone = ("benchmarks.attention", "--threads", threads, "--peak-of")
    peaks = {name: int(harness.run_alone(*alone, name, file)[-1]) for name in (OURS, DGL_GAT)}
    return harness.compare_peaks("additive, peak extra memory", peaks, MEMORY_BAR)


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=41)
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-of", nargs=2, metavar=("NAME", "BLOCK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dgl.utils.set_num_threads(arguments.threads)
    if arguments.peak_of:
        name, file = arguments.peak_of
        print(harness.peak_extra_bytes(layer_step(name, Block(*torch.load(file)), "additive", True)))
        return
    keep_freed_memory()
    with prepared_graph(arguments.nodes, arguments.interactions) as prepared:
        block = outer_block(prepared, arguments.seeds, FANOUTS)[1].to(arguments.device)
    edges = int(block.count_D.sum())
    print(f"{block.num_src:,} sources, {block.num_dst:,} destinations, {edges:,} edges; {arguments.threads} threads")
    bandwidth = harness.copy_bandwidth(device=arguments.device)
    print(f"ceiling: a large copy moves {bandwidth / 1e9:.1f} GB/s")
    results: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as folder:
        file = Path(folder) / "block.pt"
        torch.save((block.neighbors_DF, block.count_D, block.num_src), file)
        for line in LINES:
            results += compare_line(line, block, file, arguments.threads, arguments.repeats, bandwidth)
        on_cpu = arguments.device == "cpu"
        results.append(compare_memory(file, arguments.threads) if on_cpu else compare_gpu_memory(block))
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
