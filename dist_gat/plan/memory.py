"""Bytes that the largest rank holds.

Shape legend: S sources, D destinations, F columns of a neighbour list, H heads, E embedding size, B seeds, N negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

from dist_gat.config.sections import Config
from dist_gat.config.task_sections import FIRST_RELATION
from dist_gat.data.column_layout import OUR_OWN, Layout, width_of
from dist_gat.graph.part import EDGE_TYPES
from dist_gat.graph.ranges import parts_of_ranks
from dist_gat.nn.edge_terms import edge_kinds
from dist_gat.nn.recommender import build_dense
from dist_gat.plan.constants import Constants
from dist_gat.plan.graph_shape import GraphShape, Messages, expected_messages
from dist_gat.plan.planned_columns import planned_layouts
from dist_gat.plan.text_weights import read_text_weights
from dist_gat.plan.traffic import exchanges_parts, needs_degree, row_size, value_bytes
from dist_gat.plan.workload import Workload
from dist_gat.sampling.loader import IN_FLIGHT, count_streams

INT, COLUMN = 8, 4
# of a seed and a negative: a score, its share of the softmax, the masks, and the gradient
LOSS_BYTES = 14
# copies of the looked-up rows that are alive at the height of the backward pass: rows, gradient, sparse gradient
ROW_COPIES, EXCHANGED_ROW_COPIES = 3, 5
# the rows of one layer's destinations: query, aggregate, output and the gradients of these
DESTINATION_COPIES = 3
# a row of a column and its gradient
ENCODED_COPIES = 2


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. On a GPU the tables, the model and the activations lie there, the rest in the host's memory.

    embedding and moments: exact, for parts of equal size. graph: the mapped arrays of the parts that a rank reads in
    place, shared by the ranks of a host through the page cache. columns: of nodes, the mapped ones like the graph and
    those of the batches. text: an encoder that trains, with what its backward pass keeps. batch: samples, those in
    flight included.
    activations: rows, weights and scores at the height of a step. process: imports and heaps.
    """

    embedding: int
    moments: int
    model: int
    text: int
    graph: int
    columns: int
    batch: int
    activations: int
    process: int

    @property
    def device(self) -> int:
        """Held where the model is: the GPU, or the process."""
        return self.embedding + self.moments + self.model + self.text + self.activations

    @property
    def host(self) -> int:
        """Held beside the device, in the process."""
        return self.graph + self.columns + self.batch + self.process

    def summary(self) -> dict[str, int]:
        return {**asdict(self), "total": self.device + self.host}


def expected_memory(
    config: Config, graph: GraphShape, workload: Workload, num_workers: int, num_hosts: int, constants: Constants
) -> Memory:
    num_parts, width, messages = config.parts.num_parts, value_bytes(config), expected_messages(config, graph)
    most_parts = int(np.diff(parts_of_ranks(num_parts, num_workers)).max())
    table = -(-graph.all_nodes * most_parts // num_parts) * config.model.embedding_size * width
    in_place = 1.0 if num_workers == 1 else most_parts / num_parts
    if not exchanges_parts(config, num_hosts):
        in_place = 1.0
    elif config.sampling.access == "auto":
        in_place = 1 / num_hosts
    layouts = planned_layouts(config.data, graph.columns)
    row_bytes = [COLUMN * width_of(layouts.get(kind, ())) for kind in messages.schema.node_types]
    mapped = in_place * np.dot(messages.num_nodes, row_bytes)
    ahead = IN_FLIGHT * count_streams(config.sampling) * config.sampling.prefetch
    fetched = (1 + ahead) * np.dot(workload.rows_of_type, row_bytes)
    # Adam keeps two moments and a gradient of each dense weight
    return Memory(
        embedding=table,
        moments=2 * table,
        model=4 * dense_bytes(config, messages, layouts),
        text=round(_text_bytes(config, num_workers)),
        graph=round(in_place * graph_bytes(graph, messages)),
        columns=round(mapped + fetched),
        batch=round(_batch_bytes(config, graph, workload)),
        activations=round(
            _activation_bytes(config, workload, num_workers, constants.device)
            + _encoded_bytes(config, messages, layouts, workload)
        ),
        process=constants.process_bytes,
    )


def dense_bytes(config: Config, messages: Messages, layouts: Mapping[str, Layout]) -> int:
    """Bytes of all dense weights but those of a text encoder and of a task's head. layouts: of the columns of nodes."""
    with torch.device("meta"):
        kinds = edge_kinds(messages.schema, {})
        dense = build_dense(config.model, len(config.sampling.fanouts), layouts, kinds=kinds)
    return value_bytes(config) * sum(parameter.numel() for parameter in dense.parameters())


def graph_bytes(graph: GraphShape, messages: Messages) -> int:
    """Bytes of the arrays of all parts: row starts, sources and columns of all messages, and of each relation that a
    task can predict its pairs and the running popularity of its targets."""
    index, schema = 4 if graph.all_nodes < 2**31 else 8, messages.schema
    rows = sum(count * slots for count, slots in zip(messages.num_nodes, schema.slots, strict=True))
    column_bytes = sum(np.dtype(EDGE_TYPES[name]).itemsize for name in schema.edge_columns)
    total = INT * rows + (index + column_bytes) * sum(messages.num_edges)
    of_relation = {FIRST_RELATION: graph.num_edges, **graph.relations}
    for relation in schema.relations:
        if relation.has_pairs:
            of_pair = sum(np.dtype(EDGE_TYPES[name]).itemsize for name in relation.columns)
            total += (2 * INT + of_pair) * of_relation[relation.name]
            total += INT * messages.num_nodes[messages.type_of(relation.target)]
    return total


def _batch_bytes(config: Config, graph: GraphShape, workload: Workload) -> float:
    slots = [rows * width for rows, width in zip(workload.nodes, workload.widths, strict=False)]
    degrees = needs_degree(config) * workload.degrees
    one = INT * (workload.numbers * sum(slots) + sum(workload.nodes) + degrees * sum(workload.nodes))
    # the relabeller: keys and values in at least twice as many slots as nodes, and the nodes
    drawn, most = workload.nodes[0], float(graph.all_nodes)
    if config.sampling.time == "strict":
        one += INT * (workload.nodes[-1] + workload.rows)  # which node each is
        most *= 1 + min(config.train.batch_size, graph.num_edges)
    for width in workload.widths:
        drawn *= 1 + width
    capacity = min(drawn, most)
    relabeller = INT * (2 * 2 ** int(2 * capacity).bit_length() + capacity)
    streams = count_streams(config.sampling)
    ahead = IN_FLIGHT * streams * config.sampling.prefetch
    # the sample of a hop exists twice: as node IDs and as numbers
    return (1 + ahead) * one + streams * relabeller + INT * workload.numbers * max(slots, default=0)


def _encoded_bytes(
    config: Config, messages: Messages, layouts: Mapping[str, Layout], workload: Workload
) -> float:  # fmt: skip
    """Of the rows that the encoders of columns make and their gradients, and of the fusion of each node."""
    row_bytes, total = config.model.embedding_size * value_bytes(config), 0.0
    for kind, layout in layouts.items():
        rows = workload.rows_of_type[messages.type_of(kind)]
        kinds = [column.kind for column in layout if column.kind not in OUR_OWN]
        encoders = len(kinds) - max(kinds.count("numeric") - 1, 0)
        total += rows * row_bytes * ENCODED_COPIES * (encoders + 1)
    return total


def _text_bytes(config: Config, num_workers: int) -> float:
    """Of an encoder that trains: its weights as they are; of the updates moments, gradient and those that the kept
    vectors were made with; inputs and outputs of its linear layers for each token."""
    if config.model.text is None:
        return 0.0
    tuned = [one.config for several in config.data.node_columns.values() for one in several if one.config.trainable]
    width, total = value_bytes(config), 0.0
    for column in tuned:
        weights = read_text_weights(column.text_encoder.encoder)
        updates = config.model.text.rank * weights.ends
        tokens = column.max_tokens * config.model.text.nodes_per_step / num_workers
        total += width * (weights.num_weights + 5 * updates + tokens * weights.ends)
    return total


def _activation_bytes(config: Config, workload: Workload, num_workers: int, device: str) -> float:
    width, size, heads = value_bytes(config), config.model.embedding_size, config.model.num_heads
    copies = ROW_COPIES if num_workers == 1 else EXCHANGED_ROW_COPIES
    total = copies * workload.rows * size * width
    if config.sampling.time == "strict":
        total += 2 * workload.nodes[-1] * size * width  # a row for each time, and its gradient
    for rows, fan_out in zip(workload.nodes, workload.widths, strict=False):
        # scores, weights and their gradients, terms and theirs; a GPU also gathers the neighbours' rows, and their
        # gradient
        scores = 3 + 2 * bool(config.model.terms)
        total += width * rows * (scores * fan_out * heads + DESTINATION_COPIES * size * heads)
        total += (device == "cuda") * 2 * width * rows * fan_out * size
    total += 2 * width * workload.candidates * row_size(config)
    return total + LOSS_BYTES * workload.seeds * (workload.candidates + config.negatives.num_per_seed)
