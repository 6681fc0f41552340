"""What a prepared folder tells other graph libraries: nodes by type, with IDs and columns, and edges by relation.

Shape legend: n nodes of a type, m edges of a relation, w numbers of a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_gat.graph.part import Part, PreparedGraph
from dist_gat.graph.schema import EdgeType, Relation

CODES = ("category", "categories")  # kinds of columns whose bits are int32 codes


@dataclass(frozen=True)
class TypedEdges:
    """Of a relation: ends_2m, int64 [2, m], are places among the nodes of its source and target type, and columns,
    [m], what each edge carries: labels of pairs, or weight and category; time is int64, in microseconds."""

    relation: Relation
    ends_2m: np.ndarray
    columns: dict[str, np.ndarray]


def node_ids(prepared: PreparedGraph, kind: str) -> list[str]:
    """The external IDs [n] of a type, by place: in the order of their node IDs."""
    return prepared.ids(kind).sort("node_id")["external_id"].cast(str).to_list()


def node_columns(prepared: PreparedGraph, kind: str) -> dict[str, np.ndarray]:
    """By name, [n] or [n, w]: float32 as the layers read it, NaN where missing; codes int32, -1 where missing.

    `known` is 1 for nodes that have a training pair. Empty for a type without columns.
    """
    if kind not in prepared.layouts:
        return {}
    values = np.concatenate([part.features[kind] for part in prepared.parts])
    found = {}
    for column in prepared.layouts[kind]:
        own = np.ascontiguousarray(values[:, column.slice])
        own = own.view(np.int32) if column.kind in CODES else own
        found[column.name] = own[:, 0] if column.width == 1 else own
    return found


def typed_edges(prepared: PreparedGraph, relation: Relation) -> TypedEdges:
    """The training pairs of a relation that a task can predict, as its table has them, or the messages of another, each
    edge once."""
    parts = [pairs_of(prepared, part, relation) if relation.has_pairs else messages_of(prepared, part, relation)
             for part in prepared.parts]  # fmt: skip
    ends, columns = zip(*parts, strict=True)
    ends_2m = np.concatenate(ends, axis=1)
    places = [
        places_of(prepared, kind, nodes)
        for kind, nodes in zip((relation.source, relation.target), ends_2m, strict=True)
    ]
    return TypedEdges(
        relation, np.stack(places), {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
    )


def places_of(prepared: PreparedGraph, kind: str, nodes: np.ndarray) -> np.ndarray:
    """int64 [m]: the place of each node among those of its type."""
    bounds = prepared.ranges.bounds_of(kind)
    before = np.append(0, np.cumsum(bounds[:, 1] - bounds[:, 0]))
    part = prepared.ranges.part_of(nodes)
    return before[part] + nodes - bounds[part, 0]


def pairs_of(prepared: PreparedGraph, part: Part, relation: Relation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Node IDs, int64 [2, m], and columns of a part's training pairs."""
    columns = {label: part.labels(relation, "train", label) for label in prepared.manifest["labels"][relation.name]}
    if prepared.has_times(relation):
        columns["time"] = part.times(relation, "train")
    return part.pairs(relation, "train").T, columns


def messages_of(prepared: PreparedGraph, part: Part, relation: Relation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Node IDs, int64 [2, m], and columns of the messages to a part's nodes that a relation's source type has."""
    schema = prepared.schema
    number, edge_type = backward(schema.edge_types, relation)
    nodes = np.asarray(part.ranges.nodes_of_type(part.number, relation.source), dtype=np.int64)
    row = part.rows.of(nodes) + schema.slot_of[number]
    first, last = part.indptr[row], part.indptr[row + 1]
    ends = np.repeat(nodes, last - first)
    at = np.arange(len(ends)) + np.repeat(first - np.append(0, np.cumsum(last - first))[:-1], last - first)
    others = part.indices[at].astype(np.int64)
    kept = np.ones(len(ends), bool)
    if edge_type.is_symmetric:  # it has each edge both ways, and where there are categories the second has codes above
        with_category = "category" in relation.columns
        kept = part.edge_column("category")[at] < len(relation.categories) if with_category else ends <= others
    columns = {name: part.edge_column(name)[at][kept] for name in relation.columns}
    return np.stack([ends, others])[:, kept], columns


def backward(edge_types: tuple[EdgeType, ...], relation: Relation) -> tuple[int, EdgeType]:
    """The number of the edge type that leads to the relation's sources, and the type."""
    return next((n, one) for n, one in enumerate(edge_types) if one.relation.name == relation.name and one.backward)
