"""Layer-wise inference: the representation of every node, over all its neighbours, layer by layer.

Each rank computes its own nodes in chunks and asks the owners for the rows of the layer below, so memory
is bounded by the rank's own rows and one chunk. Chunks are cut inside parts, never across them, so every
row is computed by the same operations on the same shapes for any number of ranks.

Shape legend: O own nodes, D destinations of a chunk, S sources, F widest row, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import exchange, exchange_back, route_to
from dist_gat.graph.part import Part
from dist_gat.nn.embedding import EmbeddingShard
from dist_gat.nn.encoder import Encoder
from dist_gat.sampling.block import Block
from dist_gat.sampling.neighbors import Relabeller
from dist_gat.sampling.sampler import gather_features
from dist_gat.sampling.store import GraphStore

Chunk = TypeVar("Chunk")


@torch.no_grad()
def infer_representations(
    encoder: Encoder,
    table: EmbeddingShard,
    store: GraphStore,
    edge_chunk: int,
    needs_degree: bool,
    progress: Callable[[str], None] = lambda message: None,
) -> Tensor:
    """[O, R]: the representations of this rank's nodes, in node-ID order. Collective.

    edge_chunk bounds destinations × widest row of a chunk; a single node with more neighbours than that is
    a chunk of its own.
    """
    parts = [store.prepared.parts[p] for p in store.own_parts]
    first = table.first_node
    device = table.weight.device
    own_nodes = np.arange(first, first + table.weight.shape[0])
    features = {
        kind: (at.to(device), rows.to(device)) for kind, (at, rows) in gather_features(store, own_nodes).items()
    }
    below = encoder.input_rows(table.weight, features)
    depths = [below]
    for number, layer in enumerate(encoder.layers, start=1):
        rows_OE = torch.empty_like(below)
        chunks = [(part, rows) for part in parts for rows in degree_chunks(part.indptr, edge_chunk)]
        nothing = (parts[0], np.zeros(0, dtype=np.int64))
        for part, rows in padded(chunks, nothing, table.channel):
            nodes, block = full_block(part, rows, store, needs_degree)
            source_rows = fetch_rows(below, torch.from_numpy(nodes), table)
            result = layer(source_rows, block.to(device)).rows_DO
            rows_OE[torch.from_numpy(rows).to(device) + (part.first_node - first)] = result.to(rows_OE.dtype)
        depths.append(rows_OE)
        below = rows_OE
        progress(f"inference: layer {number} of {len(encoder.layers)}")
    rows_OR = encoder.combine(depths)
    # without layers and features the last depth is the table itself, which training goes on to change
    return rows_OR.clone() if rows_OR is table.weight else rows_OR


def degree_chunks(indptr: np.ndarray, edge_chunk: int) -> Iterator[np.ndarray]:
    """Rows of a part in order of degree, cut so that rows × widest row stays below `edge_chunk`."""
    degree = np.diff(indptr)
    order = np.argsort(degree, kind="stable")
    start = 0
    while start < len(order):
        # degrees ascend, so the last row of a run is its widest
        widths = np.maximum(degree[order[start : start + edge_chunk]], 1)
        fits = widths * np.arange(1, len(widths) + 1) <= edge_chunk
        stop = start + max(int(np.count_nonzero(fits)), 1)
        yield order[start:stop]
        start = stop


def padded(chunks: list[Chunk], nothing: Chunk, channel: Channel) -> Iterator[Chunk]:
    """The chunks of this rank, then empty ones, up to the largest number on any rank: all ranks must join in each."""
    counts = torch.zeros(channel.world_size)
    counts[channel.rank] = len(chunks)
    most = int(channel.sum(counts).max())
    yield from chunks
    for _ in range(most - len(chunks)):
        yield nothing


def full_block(part: Part, rows: np.ndarray, store: GraphStore, needs_degree: bool) -> tuple[np.ndarray, Block]:
    """Source nodes int64 [S] and the block of all neighbours of a part's `rows`."""
    nodes, block = rows_block(part.indptr, part.indices, rows, part.first_node, store.ranges.num_nodes)
    return nodes, replace(block, degree_S=torch.from_numpy(store.in_degree(nodes))) if needs_degree else block


def rows_block(
    indptr: np.ndarray, indices: np.ndarray, rows: np.ndarray, first_node: int, num_nodes: int
) -> tuple[np.ndarray, Block]:
    """Source nodes int64 [S] and the block, without degrees, of some rows of a CSC whose row 0 is `first_node`."""
    count = indptr[rows + 1] - indptr[rows]
    neighbors = np.empty((len(rows), int(count.max(initial=0))), dtype=np.int64)
    _copy_neighbors(indptr, indices, rows, neighbors)
    relabeller = Relabeller(min(len(rows) * (1 + neighbors.shape[1]), num_nodes))
    relabeller.add(rows + first_node)
    numbers = torch.from_numpy(relabeller.add(neighbors))
    return relabeller.nodes, Block(numbers, torch.from_numpy(count), len(relabeller.nodes))


@njit(nogil=True, cache=True)
def _copy_neighbors(indptr, indices, rows, neighbors):  # type: ignore[no-untyped-def]
    """Each row's neighbours, and -1 behind them."""
    for i in range(neighbors.shape[0]):
        start = indptr[rows[i]]
        count = indptr[rows[i] + 1] - start
        for j in range(count):
            neighbors[i, j] = indices[start + j]
        for j in range(count, neighbors.shape[1]):
            neighbors[i, j] = -1


def fetch_rows(own_rows: Tensor, nodes_S: Tensor, table: EmbeddingShard) -> Tensor:
    """[S, E]: rows of any nodes from the ranks that own them; `own_rows` [O, E] are this rank's. Collective.

    The rows are on the device of `own_rows`, which need not be the one that the ranks exchange rows on.
    """
    here, there = own_rows.device, table.channel.device
    if table.channel.group is None:
        return own_rows.index_select(0, nodes_S.to(here))
    nodes_S = nodes_S.to(there)
    route = route_to(table.owner_of(nodes_S), table.channel)
    asked = exchange(nodes_S, route) - table.first_node
    return exchange_back(own_rows.index_select(0, asked.to(here)).to(there), route).to(here)
