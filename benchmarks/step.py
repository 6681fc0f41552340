"""A whole training step and its sampling against a stock DGL script: `python -m benchmarks.step`.

Both sides draw 1,024 seed nodes a batch from the standard graph through DGL's `DataLoader`, fan-out 10,10, look up
64-dimensional learnable embeddings of all sources, run two `additive` layers of 4 heads, and update the rows with
sparse Adam and the layers' weights with Adam. The stock script is DGL's `NeighborSampler` (fused, with its best
number of threads), `GATConv`, `nn.Embedding(sparse=True)` and `torch.optim.SparseAdam`. The loss is the mean square
of the seeds' rows: its cost is the same on both sides and next to nothing.

Sampling is timed over some batches in a row, from opening the loader to the last batch: on one thread without
prefetching, on two with two streams, each a prefetch thread.

Both sides run with glibc told to keep freed memory, as our workers do; the stock script also runs in a process without
these settings (`benchmarks.peer`). The ceiling of a step is the time in which the machine copies the bytes that must
move: the sources' rows and their gradient, and embedding, two moments and gradient in the update, once read and once
written; of a sample, the neighbour lists once read and once written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import harness
from benchmarks.graph import dgl_graph, prepared_graph, ranking_sampler
from benchmarks.harness import OURS, Line, Step
from benchmarks.peer import STOCK, StockPeer
from dist_gat.base.random import Purpose, make_key
from dist_gat.config.model_sections import ModelConfig
from dist_gat.config.sections import SamplingConfig, TrainConfig
from dist_gat.exchange.channel import Channel
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.recommender import build_recommender
from dist_gat.optim.optimizer import build_optimizers
from dist_gat.sampling.dgl import BlockSampler, DataLoader, dgl
from dist_gat.sampling.graph_store import GraphStore, open_store
from dist_gat.sampling.loader import open_loader, take_turns
from dist_gat.sampling.ownership import share_nodes

SIZE, HEADS, SEEDS, FANOUTS = 64, 4, 1024, [10, 10]
BATCHES = 20  # over which sampling is timed
SAMPLER_BAR, STEP_BAR = 2.0, 4.0
SCRIPT = "DGL script"
LOADER = "DGL DataLoader"


class NodeBlocks(BlockSampler):
    """Our sampler for seed nodes instead of seed edges; each of several begins at a step of its own."""

    def __init__(
        self, store: GraphStore, first_step: int = 0, fanouts: list[int] = FANOUTS, edge_columns: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.edges = ranking_sampler(store, fanouts, SEEDS, edge_columns)
        self.step = first_step

    def sample(self, g: GraphStore, seeds: torch.Tensor, exclude_eids: None = None) -> Any:
        self.step += 1
        relabeller = self.edges.relabeller(len(seeds))
        relabeller.add(seeds.numpy())
        key = int(make_key(0, Purpose.NEIGHBORS, self.step))
        nodes, _, blocks = self.edges.sample_blocks(g, relabeller, (key, {}, None))
        return torch.from_numpy(nodes), blocks


def our_batches(
    prepared: PreparedGraph, fanouts: list[int] = FANOUTS, edge_columns: Sequence[str] = ()
) -> Iterator[Any]:
    store = open_store(prepared, Channel("benchmark"), "auto")
    return endless(store, NodeBlocks(store, 0, fanouts, edge_columns), prepared.ranges.num_nodes)


def our_sampling(
    prepared: PreparedGraph, num_streams: int, fanouts: list[int] = FANOUTS, edge_columns: Sequence[str] = ()
) -> Step:
    """BATCHES batches; several streams take turns, and each has every n-th batch."""
    store = open_store(prepared, Channel("benchmark"), "auto")
    samplers = [NodeBlocks(store, number << 32, fanouts, edge_columns) for number in range(num_streams)]
    seeds = some_seeds(prepared).view(BATCHES, SEEDS)

    def step() -> None:
        loaders = [
            open_loader(store, seeds[number::num_streams].flatten(), sampler, num_streams > 1, batch_size=SEEDS)
            for number, sampler in enumerate(samplers)
        ]
        assert sum(1 for _ in take_turns(loaders)) == BATCHES

    return step


def stock_sampling(prepared: PreparedGraph) -> Step:
    graph, sampler = dgl_graph(prepared), dgl.dataloading.NeighborSampler(FANOUTS)
    seeds = some_seeds(prepared)

    def step() -> None:
        loader = DataLoader(graph, seeds, sampler, batch_size=SEEDS)
        loader.cpu_affinity_enabled = True
        assert sum(1 for _ in loader) == BATCHES

    return step


def some_seeds(prepared: PreparedGraph) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).permutation(prepared.ranges.num_nodes)[: BATCHES * SEEDS])


def stock_batches(prepared: PreparedGraph) -> Iterator[Any]:
    return endless(dgl_graph(prepared), dgl.dataloading.NeighborSampler(FANOUTS), prepared.ranges.num_nodes)


def endless(graph: Any, sampler: BlockSampler, num_nodes: int) -> Iterator[Any]:
    """Batches of one epoch after the other, without a thread that would sample while the other side is timed."""
    while True:
        order = torch.from_numpy(np.random.default_rng(1).permutation(num_nodes))
        loader = DataLoader(graph, order, sampler, batch_size=SEEDS)
        loader.cpu_affinity_enabled = True
        yield from loader


def our_step(prepared: PreparedGraph, fanouts: list[int] = FANOUTS, terms: Sequence[str] = ()) -> Step:
    owned = share_nodes(prepared.ranges, 1, 0)
    settings = {"embedding_size": SIZE, "scoring": "additive", "num_heads": HEADS, "terms": list(terms)}
    config = ModelConfig.model_validate(settings | {"residual": False, "combination": "last"})
    kinds = prepared_kinds(prepared, SamplingConfig(fanouts=fanouts))
    model = build_recommender(config, len(fanouts), {}, owned, Channel("rows"), 0, kinds=kinds)
    optimizers = build_optimizers(model, TrainConfig(learning_rate=0.01), 1)
    batches = our_batches(prepared, fanouts, model.encoder.edge_columns)

    def step() -> None:
        nodes, blocks = next(batches)
        optimizers.zero_grad()
        rows_NR = model.dense(model.table(nodes), {}, blocks).rows_NR
        rows_NR.square().mean().backward()
        optimizers.step()

    return step


class StockModel(nn.Module):
    def __init__(self, num_nodes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_nodes, SIZE, sparse=True)
        kind = dgl.nn.GATConv
        self.layers = nn.ModuleList(
            kind(SIZE, SIZE // HEADS, HEADS, allow_zero_in_degree=True, activation=act) for act in (nn.ELU(), None)
        )


def stock_step(prepared: PreparedGraph) -> Step:
    model = StockModel(prepared.ranges.num_nodes)
    rows = torch.optim.SparseAdam(model.table.parameters(), lr=0.01)
    dense = torch.optim.Adam(model.layers.parameters(), lr=0.01)
    batches = stock_batches(prepared)

    def step() -> None:
        nodes, _, blocks = next(batches)
        rows.zero_grad()
        dense.zero_grad()
        hidden = model.table(nodes)
        for layer, block in zip(model.layers, blocks, strict=True):
            hidden = layer(block, hidden).flatten(1)
        hidden.square().mean().backward()
        rows.step()
        dense.step()

    return step


def stock_alone(kind: str, folder: str, threads: str) -> Step:
    """The stock script's step or its sampling, for a process of its own."""
    torch.set_num_threads(2)
    dgl.utils.set_num_threads(int(threads))
    prepared = open_prepared(folder)
    if kind == "step":
        return stock_step(prepared)
    return stock_sampling(prepared)


def best_thread_count(prepared: PreparedGraph, repeats: int) -> int:
    """The better number of threads for DGL's sampler, which does not always gain from a second one."""
    medians = {}
    for threads in (1, 2):
        dgl.utils.set_num_threads(threads)
        medians[threads] = float(
            np.median(harness.seconds_in_turn({LOADER: stock_sampling(prepared)}, repeats)[LOADER])
        )
    return min(medians, key=lambda threads: medians[threads])


def main() -> None:
    arguments = harness.new_parser(__doc__, repeats=41).parse_args()
    keep_freed_memory()
    results: list[Line] = []
    with prepared_graph(arguments.nodes, arguments.interactions) as prepared:
        bandwidth = harness.copy_bandwidth()
        dgl_threads = best_thread_count(prepared, arguments.repeats // 2)
        print(f"ceiling: {bandwidth / 1e9:.1f} GB/s; DGL samples best with {dgl_threads} thread(s)")
        nodes, blocks = next(our_batches(prepared))
        list_bytes = BATCHES * 2 * 4 * sum(block.neighbors_DF.numel() for block in blocks)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            dgl.utils.set_num_threads(dgl_threads)
            alone = StockPeer("benchmarks.step", "stock_alone", "sampling", prepared.folder, dgl_threads)
            steps: dict[str, Step] = {
                OURS: our_sampling(prepared, threads),
                LOADER: stock_sampling(prepared),
                f"{LOADER}, {STOCK}": alone,
            }
            seconds = harness.seconds_in_turn(steps, arguments.repeats, settle_s=harness.SETTLE_S)
            alone.close()
            results += harness.compare(f"sampler, {threads} thread(s)", seconds, SAMPLER_BAR, list_bytes / bandwidth)
        torch.set_num_threads(2)
        alone = StockPeer("benchmarks.step", "stock_alone", "step", prepared.folder, dgl_threads)
        steps = {OURS: our_step(prepared), SCRIPT: stock_step(prepared), f"{SCRIPT}, {STOCK}": alone}
        seconds = harness.seconds_in_turn(steps, arguments.repeats, settle_s=harness.SETTLE_S)
        alone.close()
        for name, values in seconds.items():
            print(f"{name}: {SEEDS / float(np.median(values)):,.0f} seeds/s")
        step_bytes = 4 * SIZE * len(nodes) * (2 + 7)
        results += harness.compare("training step, 1 worker", seconds, STEP_BAR, step_bytes / bandwidth)
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
