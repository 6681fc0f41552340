"""A prepared folder as a graph of NetworkX."""

from __future__ import annotations

from typing import Any

import numpy as np

from dist_gat.base.extra import need
from dist_gat.convert.typed_graph import node_columns, node_ids, typed_edges
from dist_gat.graph.part import PreparedGraph


def to_networkx(prepared: PreparedGraph) -> Any:
    """A `MultiDiGraph` of the training edges, from source to target; its nodes are (type, external ID).

    Nodes have `node_type`, `external_id`, `bipartite`, 0 for sources of the first relation and 1 for others, and a
    value for each column that is not missing. Edges have `relation`, and what the relation carries.
    """
    networkx = need("networkx", "a graph of NetworkX", "graphs")
    graph = networkx.MultiDiGraph()
    names = {kind: node_ids(prepared, kind) for kind in prepared.schema.node_types}
    for kind, ids in names.items():
        columns = {
            name: readable(prepared, kind, name, values) for name, values in node_columns(prepared, kind).items()
        }
        for place, one in enumerate(ids):
            known = {name: values[place] for name, values in columns.items() if values[place] is not None}
            side = int(kind != prepared.schema.relations[0].source)
            graph.add_node((kind, one), **known, node_type=kind, external_id=one, bipartite=side)
    for relation in prepared.schema.relations:
        edges = typed_edges(prepared, relation)
        columns = {name: values.tolist() for name, values in edges.columns.items()}
        if "category" in columns:
            columns["category"] = [relation.categories[code] for code in columns["category"]]
        sources, targets = edges.ends_2m.tolist()
        for at, (source, target) in enumerate(zip(sources, targets, strict=True)):
            ends = (relation.source, names[relation.source][source]), (relation.target, names[relation.target][target])
            graph.add_edge(*ends, relation=relation.name, **{name: values[at] for name, values in columns.items()})
    return graph


def readable(prepared: PreparedGraph, kind: str, column: str, values: np.ndarray) -> list[Any]:
    """A value a node: names of categories in place of codes, and None where it is missing."""
    if values.dtype == np.int32:
        names = prepared.categories(kind, column).to_list()
        rows = values.reshape(len(values), -1).tolist()
        listed = [[names[code] for code in row if code >= 0] for row in rows]
        return [(row if values.ndim == 2 else row[0]) if row else None for row in listed]
    missing = np.isnan(values).reshape(len(values), -1).any(axis=1)
    return [None if absent else value for value, absent in zip(values.tolist(), missing, strict=True)]
