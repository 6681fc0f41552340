"""`Neighborhood`: the sub-graph that determines the representations of some nodes, and their computation from it.

With L layers, layer l is needed for the nodes within L - l hops of the targets, so the sub-graph holds every neighbour
of every node within L - 1 hops. Nothing is sampled and hubs are not cut: the result is that of `infer_representations`,
up to the rounding of differently shaped products. The price of a hub is its edges, and the worst case is the whole
graph: 8 + 4 L H bytes an edge and 4 (L + 1) E bytes a node, computed in chunks.

Shape legend: S nodes of the sub-graph, T targets (the first T of them), D nodes that a layer computes, A edges
into those, H heads, E embedding size, R representation size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dist_gat.evaluate.inference import block_in_place, degree_chunks
from dist_gat.nn.encoder import Encoded, Encoder
from dist_gat.sampling.graph_store import GraphStore


@dataclass(frozen=True)
class Neighborhood:
    """nodes: int64 [S] node IDs, by hop. Everything else uses their positions.

    hop_ends:  L + 1 counts: the first hop_ends[h] nodes are within h hops of the targets.
    indptr:    int64 [hop_ends[L - 1] + 1], CSC of in-edges.
    indices:   int64, sources, in the order of the parts.
    in_degree: int64 [S], in the whole training graph, not in the sub-graph.
    """

    nodes: np.ndarray
    hop_ends: tuple[int, ...]
    indptr: np.ndarray
    indices: np.ndarray
    in_degree: np.ndarray

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    def edges_of(self, place: int) -> slice:
        """The edges into one node."""
        return slice(int(self.indptr[place]), int(self.indptr[place + 1]))

    def without(self, target: int, sources: np.ndarray) -> Neighborhood:
        """The sub-graph of the training graph without some edges of a target, in both directions."""
        count = np.diff(self.indptr)
        into = np.repeat(np.arange(len(count)), count)
        gone = (into == target) & np.isin(self.indices, sources)
        gone |= (self.indices == target) & np.isin(into, sources)
        kept = np.bincount(into[~gone], minlength=len(count))
        in_degree = self.in_degree.copy()
        in_degree[target] -= len(sources)
        in_degree[sources] -= 1
        return replace(
            self, indptr=np.append(0, np.cumsum(kept)), indices=self.indices[~gone], in_degree=in_degree
        )  # fmt: skip


def find_neighborhood(store: GraphStore, targets: np.ndarray, num_layers: int) -> Neighborhood:
    """The sub-graph for int64 [T] distinct target nodes. Reads all its rows in place, in this process."""
    nodes, new, hop_ends = targets, targets, [len(targets)]
    counts, sources = [], []
    for _ in range(num_layers):
        count, source = in_edges(store, new)
        counts.append(count)
        sources.append(source)
        new = np.setdiff1d(source, nodes)
        nodes = np.concatenate([nodes, new])
        hop_ends.append(len(nodes))
    order = np.argsort(nodes)
    indices = order[np.searchsorted(nodes, np.concatenate(sources), sorter=order)]
    indptr = np.append(0, np.cumsum(np.concatenate(counts)))
    return Neighborhood(nodes, tuple(hop_ends), indptr, indices, store.in_degree(nodes))


def in_edges(store: GraphStore, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In-degrees int64 [n], and the source nodes of all in-edges, int64 [their sum], node by node."""
    count = store.in_degree(nodes)
    end = np.cumsum(count)
    sources = np.empty(count.sum(), dtype=np.int64)
    part_of = store.ranges.part_of(nodes)
    for number in np.unique(part_of):
        part, mine = store.prepared.parts[number], part_of == number
        start = part.indptr[nodes[mine] - part.first_node]
        sources[positions(end[mine] - count[mine], count[mine])] = part.indices[positions(start, count[mine])]
    return count, sources


def positions(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0] … start[0] + count[0] - 1, then those of the next: int64 [sum of counts]."""
    return np.repeat(start - (np.cumsum(count) - count), count) + np.arange(count.sum())


@torch.no_grad()
def encode_targets(encoder: Encoder, neighborhood: Neighborhood, input_SE: Tensor, edge_chunk: int) -> Encoded:
    """Representations [T, R] of the targets, and of each layer the attention weights [A, H] of its edges.

    Layer l weighs the edges into the nodes within L - l hops: the first A entries of `neighborhood.indices`.
    """
    in_degree = torch.from_numpy(neighborhood.in_degree) if encoder.needs_degree else None
    depths, alphas = [input_SE], []
    for hop, layer in zip(reversed(range(len(encoder.layers))), encoder.layers, strict=True):
        below = depths[-1]
        num_rows, degree_S = neighborhood.hop_ends[hop], None if in_degree is None else in_degree[: len(below)]
        indptr = neighborhood.indptr[: num_rows + 1]
        rows_DE = torch.empty(num_rows, below.shape[1], dtype=below.dtype)
        places, weights = [], []
        for rows in degree_chunks(indptr, edge_chunk):
            block = block_in_place(indptr, neighborhood.indices, rows, 0, len(below), degree_S)
            attended = layer(below, block)
            rows_DE[torch.from_numpy(rows)] = attended.rows_DO.to(below.dtype)
            places.append(positions(indptr[rows], indptr[rows + 1] - indptr[rows]))
            weights.append(attended.alpha_DFH[block.mask_DF()])
        alphas.append(torch.cat(weights)[torch.from_numpy(np.argsort(np.concatenate(places)))])
        depths.append(rows_DE)
    num_targets = neighborhood.hop_ends[0]
    return Encoded(encoder.combine([rows[:num_targets] for rows in depths]), alphas)
