"""`Neighborhood`: the sub-graph that determines the representations of some nodes, and their computation from it.

With L layers, layer l is needed for the nodes within L - l hops of the targets, so the sub-graph holds every neighbour
of every node within L - 1 hops. Nothing is sampled and hubs are not cut: the result is that of `infer_representations`,
up to the rounding of differently shaped products. The price of a hub is its edges, and the worst case is the whole
graph: 8 + 4 L H bytes an edge and 4 (L + 1) E bytes a node, computed in chunks.

Shape legend: S nodes of the sub-graph, T targets (the first T of them), D nodes that a layer computes, A edges
into those, H heads, E embedding size, R representation size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.inference import block_in_place, degree_chunks
from dist_gat.graph.schema import Schema
from dist_gat.nn.encoder import Encoded, Encoder
from dist_gat.sampling.edge_columns import padded_columns, positions, read_columns, stored_columns
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.hop_plan import EDGE_COLUMNS


@dataclass(frozen=True)
class Neighborhood:
    """nodes: int64 [S] node IDs, by hop. Everything else uses their positions.

    hop_ends:  L + 1 counts: the first hop_ends[h] nodes are within h hops of the targets.
    indptr:    int64 [hop_ends[L - 1] + 1], CSC of in-edges.
    indices:   int64, sources, in the order of the parts.
    degrees:   int64 [S, K], in the whole training graph, not in the sub-graph, by edge type.
    stored:    of each edge what the parts have of what the layers read, and `kind`, its edge type; of `schema`.
    """

    nodes: np.ndarray
    hop_ends: tuple[int, ...]
    indptr: np.ndarray
    indices: np.ndarray
    degrees: np.ndarray
    stored: dict[str, np.ndarray]
    schema: Schema

    @property
    def in_degree(self) -> np.ndarray:
        """int64 [S]: of the first edge type, see `GraphStore.in_degree`."""
        return self.degrees[:, 0]

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    def edges_of(self, place: int) -> slice:
        """The edges into one node."""
        return slice(int(self.indptr[place]), int(self.indptr[place + 1]))

    @property
    def into(self) -> np.ndarray:
        """int64: the destination of each edge."""
        count = np.diff(self.indptr)
        return np.repeat(np.arange(len(count)), count)

    def without(self, target: int, sources: np.ndarray) -> Neighborhood:
        """The sub-graph of the training graph without some edges of a target, in both directions."""
        into = self.into
        gone = (into == target) & np.isin(self.indices, sources)
        gone |= (self.indices == target) & np.isin(into, sources)
        return self._without(gone)

    def without_times(self) -> Neighborhood:
        """Without the edges whose relation has times."""
        return self._without(np.array(self.schema.has_time)[self.stored["kind"]])

    def _without(self, gone: np.ndarray) -> Neighborhood:
        into = self.into
        kept = np.bincount(into[~gone], minlength=len(self.indptr) - 1)
        degrees = self.degrees.copy()
        np.subtract.at(degrees, (into[gone], self.slots_of(gone)), 1)
        return replace(
            self, indptr=np.append(0, np.cumsum(kept)), indices=self.indices[~gone], degrees=degrees,
            stored={name: values[~gone] for name, values in self.stored.items()},
        )  # fmt: skip

    def slots_of(self, edges: np.ndarray) -> np.ndarray:
        """int64: of some edges, the place of their edge type among those that lead to the same node type."""
        return np.array(self.schema.slot_of)[self.stored["kind"][edges]]

    def taken(self, edges: np.ndarray) -> Neighborhood:
        """The same nodes with some of the edges, in this order, which are no node's by themselves."""
        stored = {name: values[edges] for name, values in self.stored.items()}
        return replace(self, indices=self.indices[edges], stored=stored)

    def columns(self, start: np.ndarray, count: np.ndarray, names: Sequence[str]) -> dict[str, Tensor]:
        """What the layers read of the edges from `start` on, of each of n nodes: by name, [n, widest]."""
        at = positions(start, count)
        stored = {name: values[at] for name, values in self.stored.items()}
        return padded_columns(read_columns(stored, count, self.schema, names), count)


def find_neighborhood(store: GraphStore, targets: np.ndarray, num_layers: int) -> Neighborhood:
    """The sub-graph for int64 [T] distinct target nodes. Reads all its rows in place, in this process."""
    nodes, new, hop_ends = targets, targets, [len(targets)]
    found = []
    for _ in range(num_layers):
        found.append(in_edges(store, new))
        new = np.setdiff1d(found[-1].sources, nodes)
        nodes = np.concatenate([nodes, new])
        hop_ends.append(len(nodes))
    order = np.argsort(nodes)
    sources = np.concatenate([one.sources for one in found])
    indices = order[np.searchsorted(nodes, sources, sorter=order)]
    indptr = np.append(0, np.cumsum(np.concatenate([one.number for one in found])))
    stored = {name: np.concatenate([one.stored[name] for one in found]) for name in found[0].stored}
    return Neighborhood(
        nodes, tuple(hop_ends), indptr, indices, store.degrees(nodes), stored, store.prepared.schema
    )  # fmt: skip


class InEdges(NamedTuple):
    """number: int64 [n], edges to each of n nodes. sources: int64 [their sum], node by node. stored: as in
    `Neighborhood`."""

    number: np.ndarray
    sources: np.ndarray
    stored: dict[str, np.ndarray]


def in_edges(store: GraphStore, nodes: np.ndarray) -> InEdges:
    """All edges to some nodes."""
    part_of, names = store.ranges.part_of(nodes), ["kind", *EDGE_COLUMNS]
    pieces, order = [], []
    for number in np.unique(part_of) if len(nodes) else (0,):
        part, mine = store.prepared.parts[number], np.flatnonzero(part_of == number)
        rows = nodes[mine] - part.first_node
        start = part.node_starts[rows]
        count = part.node_starts[rows + 1] - start
        sources = np.asarray(part.indices[positions(start, count)], dtype=np.int64)
        pieces.append(InEdges(count, sources, stored_columns(part, store.prepared.schema, rows, names)))
        order.append(mine)
    back = np.argsort(np.concatenate(order))
    count = np.concatenate([piece.number for piece in pieces])
    at = positions((np.cumsum(count) - count)[back], count[back])
    stored = {name: np.concatenate([piece.stored[name] for piece in pieces])[at] for name in pieces[0].stored}
    return InEdges(count[back], np.concatenate([piece.sources for piece in pieces])[at], stored)


def encode_targets(encoder: Encoder, neighborhood: Neighborhood, input_SE: Tensor, edge_chunk: int) -> Encoded:
    """Representations [T, R] of the targets, and of each layer the attention weights [A, H] of its edges."""
    depths, alphas = encode_depths(encoder, neighborhood, input_SE, edge_chunk)
    num_targets = neighborhood.hop_ends[0]
    return Encoded(encoder.combine([rows[:num_targets] for rows in depths]), alphas)


@torch.no_grad()
def encode_depths(
    encoder: Encoder, neighborhood: Neighborhood, input_SE: Tensor, edge_chunk: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The rows of every depth, [S, E] and of fewer nodes above, and of each layer the attention weights [A, H].

    Layer l weighs the edges into the nodes within L - l hops: the first A entries of `neighborhood.indices`.
    """
    degrees = torch.from_numpy(neighborhood.degrees) if encoder.needs_degree else None
    depths, alphas = [input_SE], []
    for hop, layer in zip(reversed(range(len(encoder.layers))), encoder.layers, strict=True):
        below = depths[-1]
        num_rows, degree_SK = neighborhood.hop_ends[hop], None if degrees is None else degrees[: len(below)]
        indptr = neighborhood.indptr[: num_rows + 1]
        rows_DE = torch.empty(num_rows, below.shape[1], dtype=below.dtype)
        places, weights = [], []
        for rows in degree_chunks(indptr, edge_chunk):
            edges = neighborhood.columns(indptr[rows], indptr[rows + 1] - indptr[rows], encoder.edge_columns)
            block = block_in_place(indptr, neighborhood.indices, rows, 0, len(below), degree_SK, edges)
            attended = layer(below, block)
            rows_DE[torch.from_numpy(rows)] = attended.rows_DO.to(below.dtype)
            places.append(positions(indptr[rows], indptr[rows + 1] - indptr[rows]))
            weights.append(attended.alpha_DFH[block.mask_DF()])
        alphas.append(torch.cat(weights)[torch.from_numpy(np.argsort(np.concatenate(places)))])
        depths.append(rows_DE)
    return depths, alphas
