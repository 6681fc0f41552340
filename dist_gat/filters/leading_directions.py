"""Leading directions of the interaction graph: the first singular vectors of D_U^-a R D_I^-a, over shards.

They come from randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011), whose products with the
matrix are sums over neighbours: each rank sums for its own nodes and asks the owners for the rows.

Shape legend: O own nodes, P parts, k columns.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from dist_gat.base.random import Purpose, make_key, normal_rows
from dist_gat.evaluate.inference import fetch_rows
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.long_work import padded
from dist_gat.exchange.worker import Worker
from dist_gat.filters.own_neighbors import Neighbors, OwnNeighbors, nothing_as_one
from dist_gat.graph.part import Part
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

OVERSAMPLING = 16
ITERATIONS = 4
# below this share of the largest σ², a direction is a rounding error
NOTHING = 1e-10


def leading_directions(graph: OwnGraph, rank: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """The right singular vectors q at this rank's items, float32 [O, rank], and all σ², float64 [rank]. Collective.

    Where the graph has fewer directions, σ² and the last columns are 0. The same bits on any number of ranks.
    """
    key = make_key(seed, Purpose.SPECTRAL)
    width = rank + OVERSAMPLING
    rows_Ok = torch.from_numpy(normal_rows(key, graph.first_node, graph.num_nodes, width, 1.0))
    for _ in range(ITERATIONS):
        for node_type in (graph.relation.source, graph.relation.target):
            rows_Ok = orthonormal(graph.sum_neighbors(rows_Ok, node_type), graph, node_type)
    source = graph.relation.source
    squares_k, turn_kk = descending(graph.gram(graph.sum_neighbors(rows_Ok, source), source), graph.worker.control)
    turned_Ok = (rows_Ok.double().numpy() @ turn_kk[:, :rank]).astype(np.float32)
    return torch.from_numpy(turned_Ok), squares_k[:rank]


class OwnGraph:
    """This rank's nodes with the scale d^-a of each, and sums over their neighbours.

    neighbors: of this rank's parts; default: all that its nodes get messages from, each counting 1.
    """

    def __init__(
        self, store: GraphStore, worker: Worker, relation: Relation, edge_chunk: int, exponent: float,
        neighbors: OwnNeighbors | None = None,
    ) -> None:  # fmt: skip
        self.store, self.worker, self.relation, self.edge_chunk = store, worker, relation, edge_chunk
        self.first_node = store.ownership.first_node
        self.parts = [store.prepared.parts[part] for part in store.own_parts]
        self.num_nodes = sum(part.num_nodes for part in self.parts)
        self.neighbors = neighbors or {
            part.number: Neighbors(part.node_starts, part.indices, None) for part in self.parts
        }
        degree_O = np.concatenate([self.neighbors[part.number].degrees for part in self.parts])
        self.scale_O1 = torch.from_numpy(nothing_as_one(degree_O).astype(np.float32) ** -exponent)[:, None]

    def rows_of(self, part: int, node_type: str) -> slice:
        nodes = self.store.ranges.nodes_of_type(part, node_type)
        return slice(nodes.start - self.first_node, nodes.stop - self.first_node)

    def is_of_type(self, node_type: str) -> Tensor:
        """bool [O]"""
        mask = torch.zeros(self.num_nodes, dtype=torch.bool)
        for part in self.parts:
            mask[self.rows_of(part.number, node_type)] = True
        return mask

    def sum_neighbors(self, rows_Ok: Tensor, node_type: str) -> Tensor:
        """[O, k]: scale · Σ weight · scale · row over the in-neighbours of each node of a type, 0 for the others.

        Collective.
        """
        scaled_Ok, out_Ok = rows_Ok * self.scale_O1, torch.zeros_like(rows_Ok)
        nothing, ownership = (self.parts[0], 0, 0), self.store.ownership
        chunks = padded(self._chunks(node_type), nothing, self.worker.rows)
        for part, start, stop in self.worker.steps(f"leading directions of {node_type}s", chunks, len(chunks)):
            edges = self.neighbors[part.number]
            first, last = int(edges.starts[start]), int(edges.starts[stop])
            nodes, place = np.unique(edges.sources[first:last], return_inverse=True)
            nodes_S = torch.from_numpy(nodes.astype(np.int64))
            fetched = fetch_rows(scaled_Ok, nodes_S, ownership, self.worker.rows).numpy()
            weights, indptr = edges.weights_of(first, last), edges.starts[start : stop + 1] - first
            sums = csr_array((weights, place, indptr), shape=(stop - start, len(nodes))) @ fetched
            at = part.first_node - self.first_node
            out_Ok[at + start : at + stop] = torch.from_numpy(sums)
        return out_Ok * self.scale_O1

    def _chunks(self, node_type: str) -> list[tuple[Part, int, int]]:
        """(part, first row, row behind the last) of runs of about `edge_chunk` edges."""
        chunks = []
        for part in self.parts:
            nodes = self.store.ranges.nodes_of_type(part.number, node_type)
            start, end = nodes.start - part.first_node, nodes.stop - part.first_node
            starts = self.neighbors[part.number].starts
            while start < end:
                limit = starts[start] + self.edge_chunk
                stop = min(max(int(np.searchsorted(starts, limit, side="right")) - 1, start + 1), end)
                chunks.append((part, start, stop))
                start = stop
        return chunks

    def gram(self, rows_Ok: Tensor, node_type: str) -> np.ndarray:
        """float64 [k, k]: the products of the columns over all nodes of a type, summed part by part. Collective."""
        width = rows_Ok.shape[1]
        total = torch.zeros(width, width, dtype=torch.float64)
        for part in range(self.store.ranges.num_parts):
            own = torch.zeros_like(total)
            if part in self.store.own_parts:
                rows = rows_Ok[self.rows_of(part, node_type)].double()
                own = rows.T @ rows
            total += self.worker.control.sum(own)
        return total.numpy()


def orthonormal(rows_Ok: Tensor, graph: OwnGraph, node_type: str) -> Tensor:
    """Orthonormal columns with the same span; missing directions become columns of 0. Collective."""
    squares_k, turn_kk = descending(graph.gram(rows_Ok, node_type), graph.worker.control)
    inverse_k = np.where(squares_k > NOTHING * squares_k[0], 1 / np.sqrt(np.maximum(squares_k, NOTHING**2)), 0.0)
    return torch.from_numpy((rows_Ok.double().numpy() @ (turn_kk * inverse_k)).astype(np.float32))


def descending(matrix_kk: np.ndarray, channel: Channel) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the largest first and none below 0, and eigenvectors; the same bits on every rank. Collective."""
    both = np.zeros((len(matrix_kk) + 1, len(matrix_kk)))
    if channel.rank == 0:
        values, vectors = np.linalg.eigh(matrix_kk)
        both[0], both[1:] = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    both = channel.sum(torch.from_numpy(both)).numpy()
    return both[0], both[1:]
