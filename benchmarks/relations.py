"""What edges that carry something and several relations cost: `python -m benchmarks.relations`.

Edge terms: the outermost block of 1,024 seeds of the standard graph, fan-out 10,10, whose edges have weights and times;
64 features, 4 heads, forward and backward pass. The layer with `terms: [age, rank, weight]` against itself without.

Four relations: the interactions of the standard graph in four relations of as many edges, fan-out 3,3 along each,
against all of them in one relation with fan-out 12,12, with the same terms and that of the relation. One layer,
sampling, and a whole training step as in `benchmarks.step`. Seconds count by edge, because a node with few edges of
each relation has fewer in its sample than with all of them in one.

Peers have the same block with its edge types, without what edges carry: DGL's `HeteroGraphConv` of a `GATConv` an edge
type, and PyG's `HGTConv`.

All ratios are of their time over ours. Where others use the machine, `--clock cpu` counts what this process's threads
worked instead.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

from benchmarks import harness
from benchmarks.attention import outer_block
from benchmarks.graph import prepared_graph
from benchmarks.harness import OURS, Line, Step
from benchmarks.step import HEADS, SEEDS, SIZE, our_sampling, our_step
from dist_gat.config.model_sections import AttentionConfig
from dist_gat.config.sections import SamplingConfig
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import keep_freed_memory
from dist_gat.nn.attention import AttentionLayer
from dist_gat.nn.edge_terms import EdgeKinds, prepared_kinds
from dist_gat.sampling.block import Block
from dist_gat.sampling.dgl import dgl

TERMS = ["age", "rank", "weight"]
NUM_RELATIONS, OF_ONE, OF_FOUR = 4, [12, 12], [3, 3]
# at most 1.25 and 1.2 times the cost
TERMS_BAR, RELATIONS_BAR, PEERS_BAR = 0.8, 0.83, 4.0
PLAIN, ONE = "without terms", "one relation"
DGL_HETERO, PYG_HGT = "DGL HeteroGraphConv(GATConv)", "PyG HGTConv"


def our_layer(block: Block, kinds: EdgeKinds, scoring: str, terms: Sequence[str]) -> Step:
    """Forward and backward pass of one of our layers on a block."""
    torch.manual_seed(0)
    settings = {"scoring": scoring, "num_heads": HEADS, "residual": False, "terms": list(terms)}
    layer = AttentionLayer(AttentionConfig.model_validate(settings), SIZE, SIZE, kinds)
    rows_SI, upstream_DO = torch.randn(block.num_src, SIZE, requires_grad=True), torch.randn(block.num_dst, SIZE)

    def step() -> None:
        layer.zero_grad()
        rows_SI.grad = None
        layer(rows_SI, block).rows_DO.backward(upstream_DO)

    return step


def kinds_of(prepared: PreparedGraph) -> EdgeKinds:
    return prepared_kinds(prepared, SamplingConfig())


class TypedBlock:
    """A block as the peers have it: its rows by node type, and its edges by edge type (source, name, target)."""

    def __init__(self, prepared: PreparedGraph, nodes: np.ndarray, block: Block) -> None:
        schema = prepared.schema
        kind_S = torch.from_numpy(prepared.parts[0].rows.type_of(nodes))
        self.types = schema.node_types
        self.num_src = {name: int((kind_S == n).sum()) for n, name in enumerate(self.types)}
        self.num_dst = {name: int((kind_S[: block.num_dst] == n).sum()) for n, name in enumerate(self.types)}
        place_S = torch.empty_like(kind_S)
        for n in range(len(self.types)):
            place_S[kind_S == n] = torch.arange(int((kind_S == n).sum()))
        destination, column = block.mask_DF().nonzero(as_tuple=True)
        source, kind_E = block.neighbors_DF[destination, column], block.edges["kind"][destination, column]
        self.edges = {
            (one.source, name, one.target): torch.stack([place_S[source], place_S[destination]])[:, kind_E == n]
            for n, (one, name) in enumerate(zip(schema.edge_types, kinds_of(prepared).names, strict=True))
        }


def peer_layer(name: str, block: TypedBlock) -> Step:
    """Forward and backward pass of a peer's layer."""
    torch.manual_seed(0)
    rows = {kind: torch.randn(number, SIZE, requires_grad=True) for kind, number in block.num_src.items()}
    upstream = {kind: torch.randn(number, SIZE) for kind, number in block.num_dst.items()}
    layer: nn.Module
    if name == PYG_HGT:
        layer = HGTConv(SIZE, SIZE, (list(block.types), list(block.edges)), HEADS)
        forward = lambda: layer(rows, block.edges)  # noqa: E731
    else:
        conv = functools.partial(dgl.nn.GATConv, SIZE, SIZE // HEADS, HEADS, allow_zero_in_degree=True)
        layer = dgl.nn.HeteroGraphConv({kind: conv() for _, kind, _ in block.edges})
        edges = {kind: tuple(index) for kind, index in block.edges.items()}
        graph = dgl.create_block(edges, num_src_nodes=block.num_src, num_dst_nodes=block.num_dst)
        graph.create_formats_()
        forward = lambda: layer(graph, rows)  # noqa: E731

    def step() -> None:
        layer.zero_grad()
        for tensor in rows.values():
            tensor.grad = None
        out: Mapping[str, Tensor] = forward()
        # HGTConv returns a row for every source
        ends = [out[kind].flatten(1)[: len(up)] for kind, up in upstream.items()]
        torch.autograd.backward(ends, list(upstream.values()))

    return step


def compare(
    line: str, steps: dict[str, Step], bar: float, arguments: object, units: Mapping[str, float] | None = None
) -> list[Line]:
    """Lines of one comparison. units: what each side does in a step, where that differs."""
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    seconds = harness.seconds_in_turn(steps, arguments.repeats, settle_s=harness.SETTLE_S, clock=clock)
    for name, values in seconds.items():
        quartiles = ", ".join(f"{1e3 * x:.1f}" for x in np.percentile(values, [25, 50, 75]))
        print(f"{line}: {name}: {quartiles} ms (quartiles)", flush=True)
    if units is not None:
        seconds = {name: [x / units[name] for x in values] for name, values in seconds.items()}
    return harness.compare(line, seconds, bar, None)


def compare_terms(arguments: object) -> list[Line]:
    results = []
    with prepared_graph(arguments.nodes, arguments.interactions, has_edge_columns=True) as prepared:
        kinds = kinds_of(prepared)
        _, block = outer_block(prepared, SEEDS, [10, 10], TERMS)
        for scoring in ("additive", "dot"):
            steps = {OURS: our_layer(block, kinds, scoring, TERMS), PLAIN: our_layer(block, kinds, scoring, [])}
            results += compare(f"edge terms, {scoring}", steps, TERMS_BAR, arguments)
    return results


def compare_relations(arguments: object) -> list[Line]:
    results = []
    graph = functools.partial(prepared_graph, arguments.nodes, arguments.interactions, has_edge_columns=True)
    with graph(relations=NUM_RELATIONS) as four, graph() as one:
        sides = {OURS: (four, OF_FOUR, ["kind", *TERMS]), ONE: (one, OF_ONE, TERMS)}
        drawn = {name: outer_block(graph, SEEDS, fanouts, columns) for name, (graph, fanouts, columns) in sides.items()}
        edges = {name: int(block.count_D.sum()) for name, (_, block) in drawn.items()}
        for name, (_, block) in drawn.items():
            print(f"{name}: {block.num_src:,} sources, {block.num_dst:,} destinations, {edges[name]:,} edges")
        layers = {
            name: our_layer(drawn[name][1], kinds_of(graph), "additive", ["relation", *TERMS])
            for name, (graph, _, _) in sides.items()
        }
        results += compare("four relations, additive", layers, RELATIONS_BAR, arguments, edges)
        block = TypedBlock(four, *drawn[OURS])
        peers = {name: peer_layer(name, block) for name in (DGL_HETERO, PYG_HGT)}
        results += compare("four relations, layer", {OURS: layers[OURS], **peers}, PEERS_BAR, arguments)
        sampling = {name: our_sampling(graph, 1, fanouts, columns) for name, (graph, fanouts, columns) in sides.items()}
        results += compare("four relations, sampler", sampling, RELATIONS_BAR, arguments, edges)
        steps = {name: our_step(graph, fanouts, ["relation", *TERMS]) for name, (graph, fanouts, _) in sides.items()}
        results += compare("four relations, training step", steps, RELATIONS_BAR, arguments, edges)
    return results


def main() -> None:
    parser = harness.new_parser(__doc__, repeats=41)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dgl.utils.set_num_threads(arguments.threads)
    keep_freed_memory()
    harness.report(compare_terms(arguments) + compare_relations(arguments), arguments.json)


if __name__ == "__main__":
    main()
