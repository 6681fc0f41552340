"""A prepared folder as a `HeteroData` of PyG."""

from __future__ import annotations

from typing import Any

import torch

from dist_gat.base.extra import need
from dist_gat.convert.typed_graph import node_columns, node_ids, typed_edges
from dist_gat.graph.part import PreparedGraph


def to_pyg(prepared: PreparedGraph) -> Any:
    """A `HeteroData` of the training edges, one way; `ToUndirected` adds the other way.

    `data[TYPE]` has `num_nodes`, `external_id`, a list, and a tensor for each column of `node_columns`;
    `data[SOURCE, RELATION, TARGET]` has `edge_index`, and a tensor for what its edges carry, with the names of
    categories in `category_names`.
    """
    data = need("torch_geometric.data", "a HeteroData of PyG", "graphs").HeteroData()
    for kind in prepared.schema.node_types:
        data[kind].external_id = node_ids(prepared, kind)
        data[kind].num_nodes = len(data[kind].external_id)
        for name, values in node_columns(prepared, kind).items():
            data[kind][name] = torch.from_numpy(values)
    for relation in prepared.schema.relations:
        edges = typed_edges(prepared, relation)
        store = data[relation.source, relation.name, relation.target]
        store.edge_index = torch.from_numpy(edges.ends_2m)
        for name, values in edges.columns.items():
            store[name] = torch.from_numpy(values.astype("int64") if name == "category" else values.copy())
        if "category" in edges.columns:
            store.category_names = list(relation.categories)
    return data
