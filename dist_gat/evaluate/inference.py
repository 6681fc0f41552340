"""Layer-wise inference: the representation of every node, over all its neighbours, layer by layer.

Each rank computes its own nodes in chunks and requests the rows of the layer below from their owners, so memory is
bounded by the rank's own rows, the waiting rows of one type, and a chunk. A layer overwrites the one below: new rows of
a type wait until all types that read its old rows are done, which the schema tells. Users and items read each other, so
the type with fewer nodes waits. A single rank on a CPU reads the rows below in place, unless the layers project their
sources. Chunks are cut inside parts and types, never across them, so every row is computed by the same operations on
the same shapes for any number of ranks.

Shape legend: O own nodes, D destinations of a chunk, S sources, F widest row, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.long_work import Steps, padded, plain_steps
from dist_gat.exchange.route import exchange, exchange_back, route_to
from dist_gat.graph.part import Part
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import Schema
from dist_gat.nn.encoder import RunningCombination
from dist_gat.nn.inputs.node_inputs import Features
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.block import Block
from dist_gat.sampling.edge_columns import edges_in_full
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.id_rows import ids_present
from dist_gat.sampling.ownership import Ownership
from dist_gat.sampling.relabeller import Relabeller

# memory of a destination beside its edges, in edges: its rows, and the sums of its heads where they are kept
MIN_WIDTH = 32
# nodes whose columns are encoded at once
INPUT_ROWS = 1 << 14


def infer_representations(
    model: Recommender, store: GraphStore, edge_chunk: int, steps: Steps = plain_steps,
    depths: list[Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """[O, R]: the representations of this rank's nodes, in node-ID order. Collective.

    edge_chunk bounds destinations × widest row of a chunk, see `degree_chunks`. steps: of a worker, to tell how far it
    is and to stop. depths: gets copies of what each layer reads, [O, E] on the CPU. Nodes of the model's `untimed` type
    are represented without edges that have times; then `depths` gets what each layer reads for these too.
    """
    rows_OR = _infer(model, store, edge_chunk, steps, False, depths)
    if model.untimed is not None:
        without_OR = _infer(model, store, edge_chunk, steps, True, depths)
        is_untimed_O = torch.from_numpy(store.ranges.is_of_type(store.ownership.own_nodes, model.untimed))
        rows_OR = torch.where(is_untimed_O.to(rows_OR.device)[:, None], without_OR, rows_OR)
    return rows_OR


@torch.no_grad()
def _infer(
    model: Recommender,
    store: GraphStore,
    edge_chunk: int,
    steps: Steps,
    untimed: bool,
    depths: list[Tensor] | None = None,
) -> Tensor:
    """untimed: without edges that have times. depths: see `infer_representations`."""
    encoder, table, ownership = model.encoder, model.table, store.ownership
    parts = [store.prepared.parts[p] for p in store.own_parts]
    first, own_nodes, device = ownership.first_node, ownership.own_nodes, table.weight.device
    schema, names = store.prepared.schema, encoder.edge_columns
    if untimed:
        names = tuple(dict.fromkeys(["kind", *names]))
    all_here = table.channel.group is None and device.type == "cpu"
    in_place = all_here and not encoder.projects_sources
    degree_SK = torch.from_numpy(store.degrees(own_nodes)) if in_place and encoder.needs_degree else None
    below = _own_input_rows(model, store)

    def attended(layer: nn.Module, part: Part, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Positions among O of some rows of a part [D], and the layer's output for them [D, E]. Collective."""
        if in_place:
            source_rows = below
            edges = edges_in_full(part, schema, rows, names)
            block = block_in_place(part.node_starts, part.indices, rows, part.first_node, len(below), degree_SK, edges)
        else:
            nodes, block = full_block(part, rows, store, encoder.needs_degree, names)
            source_rows = fetch_rows(below, torch.from_numpy(nodes), ownership, table.channel)
        if untimed:
            block = without_times(block, schema)
        at_D = torch.from_numpy(rows + (part.first_node - first)).to(device)
        return at_D, layer(source_rows, block.to(device)).rows_DO.to(below.dtype)

    combination = RunningCombination(encoder)
    combination.add(below)
    nothing = (parts[0], np.zeros(0, dtype=np.int64))
    # smaller types first: of two types that read each other, the first one waits
    kinds = sorted(store.ranges.node_types, key=store.ranges.count)
    turns = turns_of(kinds, store.prepared.schema)
    chunks = {
        kind: padded(list(typed_chunks(parts, store.ranges, kind, edge_chunk)), nothing, table.channel)
        for kind in kinds
    }
    for number, layer in enumerate(encoder.layers, start=1):
        if depths is not None:
            depths.append(below.detach().to("cpu", copy=True))
        # not over the table itself, which training reads afterwards
        above = torch.empty_like(below) if below is table.weight else below
        waiting: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for turn in turns:
            waiting[turn.kind] = []
            what = f"inference, layer {number} of {len(encoder.layers)}, {turn.kind}s"
            for part, rows in steps(what, chunks[turn.kind], len(chunks[turn.kind])):
                found = attended(layer, part, rows)
                if above is not below or turn.writes_at_once:
                    above.index_copy_(0, *found)
                else:
                    waiting[turn.kind].append(found)
            for at_D, rows_DE in (found for kind in turn.then_written for found in waiting.pop(kind)):
                above.index_copy_(0, at_D, rows_DE)
        combination.add(above)
        below = above
    assert combination.rows is not None, "there is an input"
    return combination.rows.clone() if combination.rows is table.weight else combination.rows


def input_rows(
    model: Recommender, ranges: NodeRanges, nodes: np.ndarray, embedding_nE: Tensor, features: Features
) -> Tensor:
    """[n, E]: what the first layer reads of distinct nodes, from the rows of their IDs and their columns."""
    device = embedding_nE.device
    features = {kind: (at.to(device), rows.to(device)) for kind, (at, rows) in features.items()}
    present = ids_present(ranges, nodes, model.dense.inputs.config)
    has_id_n = None if present is None else torch.from_numpy(present).to(device)
    rows_nE: Tensor = model.dense.input_rows(embedding_nE, features, has_id_n)
    return rows_nE


def _own_input_rows(model: Recommender, store: GraphStore) -> Tensor:
    """[O, E]: of this rank's nodes; the table itself where nothing else is known.

    In blocks that are cut inside parts, so that memory is bounded and bits don't depend on the number of ranks.
    """
    table, first, ranges = model.table.weight, store.ownership.first_node, store.ranges
    if not store.prepared.layouts and model.dense.inputs.config.ids is None and model.dense.row_adapter is None:
        return table
    rows_OE = torch.empty_like(table)
    for part in (store.prepared.parts[number] for number in store.own_parts):
        for start in range(part.first_node, part.first_node + part.num_nodes, INPUT_ROWS):
            stop = min(start + INPUT_ROWS, part.first_node + part.num_nodes)
            features = {}
            for kind, columns in part.features.items():
                of_type = ranges.nodes_of_type(part.number, kind)
                own = range(max(start, of_type.start), max(min(stop, of_type.stop), max(start, of_type.start)))
                rows = np.array(columns[own.start - of_type.start : own.stop - of_type.start])
                features[kind] = torch.arange(own.start - start, own.stop - start), torch.from_numpy(rows)
            at = slice(start - first, stop - first)
            rows_OE[at] = input_rows(model, ranges, np.arange(start, stop), table[at], features)
    return rows_OE


class Turn(NamedTuple):
    """One type's turn in a layer that overwrites the one below.

    writes_at_once: no node still to be computed reads another node's old rows of this type, so new rows are written as
    they come; otherwise they wait. then_written: types whose waiting rows are written at the end of this turn.
    """

    kind: str
    writes_at_once: bool
    then_written: tuple[str, ...]


def turns_of(kinds: Sequence[str], schema: Schema) -> list[Turn]:
    """The turns of one layer, with the types computed in the order of `kinds`."""
    turns: list[Turn] = []
    waiting: list[str] = []
    for number, kind in enumerate(kinds):
        to_come = kinds[number + 1 :]
        at_once = not any(kind in schema.read_by(reader) for reader in [kind, *to_come])
        waiting += [] if at_once else [kind]
        done = tuple(old for old in waiting if not any(old in schema.read_by(reader) for reader in to_come))
        waiting = [old for old in waiting if old not in done]
        turns.append(Turn(kind, at_once, done))
    return turns


def typed_chunks(
    parts: Sequence[Part], ranges: NodeRanges, kind: str, edge_chunk: int
) -> Iterator[tuple[Part, np.ndarray]]:
    """The `degree_chunks` of each part's nodes of one type, as rows of the part."""
    for part in parts:
        nodes = ranges.nodes_of_type(part.number, kind)
        start, stop = nodes.start - part.first_node, nodes.stop - part.first_node
        for rows in degree_chunks(part.node_starts[start : stop + 1], edge_chunk):
            yield part, start + rows


def degree_chunks(indptr: np.ndarray, edge_chunk: int) -> Iterator[np.ndarray]:
    """Rows of a part in order of degree, in chunks with rows × max(widest row, MIN_WIDTH) of at most `edge_chunk`.

    A row that exceeds `edge_chunk` by itself is a chunk of its own.
    """
    degree = np.diff(indptr)
    order = np.argsort(degree, kind="stable")
    start = 0
    while start < len(order):
        # degrees ascend, so the last row of a run is its widest
        widths = np.maximum(degree[order[start : start + edge_chunk]], MIN_WIDTH)
        fits = widths * np.arange(1, len(widths) + 1) <= edge_chunk
        stop = start + max(int(np.count_nonzero(fits)), 1)
        yield order[start:stop]
        start = stop


def full_block(
    part: Part, rows: np.ndarray, store: GraphStore, needs_degree: bool, edge_columns: Sequence[str] = ()
) -> tuple[np.ndarray, Block]:
    """Source nodes int64 [S] and the block of all neighbours of some of a part's nodes, by their numbers in it."""
    neighbors, count = neighbors_of(part.node_starts, part.indices, rows, padding=-1)
    num_nodes = store.ranges.num_nodes
    relabeller = Relabeller(min(len(rows) * (1 + neighbors.shape[1]), num_nodes), num_nodes)
    relabeller.add(rows + part.first_node)
    numbers = torch.from_numpy(relabeller.add(neighbors))
    nodes = relabeller.nodes
    degree_SK = torch.from_numpy(store.degrees(nodes)) if needs_degree else None
    edges = edges_in_full(part, store.prepared.schema, rows, edge_columns)
    return nodes, Block(numbers, torch.from_numpy(count), len(nodes), degree_SK, edges=edges)


def block_in_place(
    indptr: np.ndarray, indices: np.ndarray, rows: np.ndarray, first_node: int, num_src: int,
    degree_SK: Tensor | None, edges: Mapping[str, Tensor],
) -> Block:  # fmt: skip
    """The block of all neighbours of some rows of a CSC, where the sources are all nodes, in their order.

    first_node: the node of the CSC's row 0. `indices` are nodes.
    """
    neighbors, count = neighbors_of(indptr, indices, rows, padding=0)
    dst_at_D = torch.from_numpy(rows + first_node)
    return Block(torch.from_numpy(neighbors), torch.from_numpy(count), num_src, degree_SK, dst_at_D, edges)


def without_times(block: Block, schema: Schema) -> Block:
    """Without the edges whose relation has times. The block has their edge types."""
    kept, _ = block.keeping(~torch.tensor(schema.has_time)[block.edges["kind"]])
    return kept


def neighbors_of(
    indptr: np.ndarray, indices: np.ndarray, rows: np.ndarray, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """int64 [D, F]: the neighbours of some rows of a CSC, and `padding` behind them; and int64 [D], how many."""
    count = indptr[rows + 1] - indptr[rows]
    neighbors = np.empty((len(rows), int(count.max(initial=0))), dtype=np.int64)
    _copy_neighbors(indptr, indices, rows, padding, neighbors)
    return neighbors, count


@njit(nogil=True, cache=True)
def _copy_neighbors(indptr, indices, rows, padding, neighbors):  # type: ignore[no-untyped-def]
    for i in range(neighbors.shape[0]):
        start = indptr[rows[i]]
        count = indptr[rows[i] + 1] - start
        for j in range(count):
            neighbors[i, j] = indices[start + j]
        for j in range(count, neighbors.shape[1]):
            neighbors[i, j] = padding


def fetch_rows(own_rows: Tensor, nodes_S: Tensor, ownership: Ownership, channel: Channel) -> Tensor:
    """[S, E]: rows of any nodes from the ranks that own them; `own_rows` [O, E] are this rank's. Collective.

    The rows are on the device of `own_rows`, which need not be the one that the ranks exchange rows on.
    """
    here, there = own_rows.device, channel.device
    if channel.group is None:
        return own_rows.index_select(0, nodes_S.to(here))
    nodes_S = nodes_S.to(there)
    route = route_to(ownership.owner_of(nodes_S), channel)
    asked = exchange(nodes_S, route) - ownership.first_node
    return exchange_back(own_rows.index_select(0, asked.to(here)).to(there), route).to(here)
