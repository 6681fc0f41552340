"""Bytes that the largest rank holds.

Shape legend: S sources, D destinations, F fan-out, H heads, E embedding size, B seeds, N negatives.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from dist_gat.config.sections import Config
from dist_gat.graph.ranges import parts_of_ranks
from dist_gat.nn.recommender import build_dense
from dist_gat.plan.constants import Constants
from dist_gat.plan.traffic import exchanges_parts, needs_degree, row_size, value_bytes
from dist_gat.plan.workload import GraphShape, Workload
from dist_gat.sampling.loader import IN_FLIGHT, count_streams

INT = 8
# of a seed and a negative: a score, its share of the softmax, the masks, and the gradient
LOSS_BYTES = 14
# copies of the looked-up rows that are alive at the height of the backward pass: rows, gradient, sparse gradient
ROW_COPIES, EXCHANGED_ROW_COPIES = 3, 5
# the rows of one layer's destinations: query, aggregate, output and the gradients of these
DESTINATION_COPIES = 3


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. On a GPU the tables, the model and the activations lie there, the rest in the host's memory.

    embedding and moments: exact, for parts of equal size. graph: the mapped arrays of the parts that a rank reads in
    place, shared by the ranks of a host through the page cache. batch: samples, those in flight included.
    activations: rows, weights and scores at the height of a step. process: imports and heaps.
    """

    embedding: int
    moments: int
    model: int
    graph: int
    batch: int
    activations: int
    process: int

    @property
    def device(self) -> int:
        """Held where the model is: the GPU, or the process."""
        return self.embedding + self.moments + self.model + self.activations

    @property
    def host(self) -> int:
        """Held beside the device, in the process."""
        return self.graph + self.batch + self.process

    def summary(self) -> dict[str, int]:
        return {**asdict(self), "total": self.device + self.host}


def expected_memory(
    config: Config, graph: GraphShape, workload: Workload, num_workers: int, num_hosts: int, constants: Constants
) -> Memory:
    num_parts, width = config.parts.num_parts, value_bytes(config)
    most_parts = int(np.diff(parts_of_ranks(num_parts, num_workers)).max())
    table = -(-graph.num_nodes * most_parts // num_parts) * config.model.embedding_size * width
    in_place = 1.0 if num_workers == 1 else most_parts / num_parts
    if not exchanges_parts(config, num_hosts):
        in_place = 1.0
    elif config.sampling.access == "auto":
        in_place = 1 / num_hosts
    # Adam keeps two moments and a gradient of each dense weight
    return Memory(
        embedding=table,
        moments=2 * table,
        model=4 * dense_bytes(config),
        graph=round(in_place * graph_bytes(graph)),
        batch=round(_batch_bytes(config, graph, workload)),
        activations=round(_activation_bytes(config, workload, num_workers, constants.device)),
        process=constants.process_bytes,
    )


def dense_bytes(config: Config) -> int:
    """Bytes of all dense weights, without projections of input features."""
    with torch.device("meta"):
        dense = build_dense(config.model, len(config.sampling.fanouts), {})
    return value_bytes(config) * sum(parameter.numel() for parameter in dense.parameters())


def graph_bytes(graph: GraphShape) -> int:
    """Bytes of the arrays of all parts: row starts, sources of both directions, training pairs, running popularity."""
    index = 4 if graph.num_nodes < 2**31 else 8
    return INT * graph.num_nodes + 2 * index * graph.num_edges + 2 * INT * graph.num_edges + INT * graph.num_items


def _batch_bytes(config: Config, graph: GraphShape, workload: Workload) -> float:
    slots = [rows * fan_out for rows, fan_out in zip(workload.nodes, config.sampling.fanouts, strict=False)]
    one = INT * (sum(slots) + sum(workload.nodes) + needs_degree(config) * sum(workload.nodes))
    # the relabeller: keys and values in at least twice as many slots as nodes, and the nodes
    drawn = workload.nodes[0]
    for fan_out in config.sampling.fanouts:
        drawn *= 1 + fan_out
    capacity = min(drawn, graph.num_nodes)
    relabeller = INT * (2 * 2 ** int(2 * capacity).bit_length() + capacity)
    streams = count_streams(config.sampling)
    ahead = IN_FLIGHT * streams * config.sampling.prefetch
    # the sample of a hop exists twice: as node IDs and as numbers
    return (1 + ahead) * one + streams * relabeller + INT * max(slots, default=0)


def _activation_bytes(config: Config, workload: Workload, num_workers: int, device: str) -> float:
    width, size, heads = value_bytes(config), config.model.embedding_size, config.model.num_heads
    copies = ROW_COPIES if num_workers == 1 else EXCHANGED_ROW_COPIES
    total = copies * workload.nodes[-1] * size * width
    for rows, fan_out in zip(workload.nodes, config.sampling.fanouts, strict=False):
        # scores, weights and their gradients; a GPU also gathers the neighbours' rows, and their gradient
        total += width * rows * (3 * fan_out * heads + DESTINATION_COPIES * size * heads)
        total += (device == "cuda") * 2 * width * rows * fan_out * size
    total += 2 * width * workload.candidates * row_size(config)
    return total + LOSS_BYTES * workload.seeds * (workload.candidates + config.negatives.num_per_seed)
