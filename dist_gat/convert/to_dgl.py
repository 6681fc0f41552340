"""A prepared folder as a heterograph of DGL."""

from __future__ import annotations

from typing import Any

import torch

from dist_gat.base.errors import ConfigError
from dist_gat.convert.typed_graph import node_columns, node_ids, typed_edges
from dist_gat.graph.part import PreparedGraph
from dist_gat.sampling.dgl import WHY_NOT_DGL, dgl


def to_dgl(prepared: PreparedGraph) -> Any:
    """A heterograph of the training edges, one way; `dgl.AddReverse` adds the other way.

    `nodes[TYPE].data` has a tensor for each column of `node_columns`, `edges[RELATION].data` one for what its edges
    carry. DGL's data are tensors alone, so external IDs are lists by node type in the attribute `external_id`. Raises
    `ConfigError` where DGL can't be loaded.
    """
    if dgl is None:
        raise ConfigError(f"a heterograph needs DGL, which can't be loaded: {WHY_NOT_DGL}; see docs/install.md")
    names = {kind: node_ids(prepared, kind) for kind in prepared.schema.node_types}
    edges = {(r.source, r.name, r.target): typed_edges(prepared, r) for r in prepared.schema.relations}
    graph = dgl.heterograph(
        {key: tuple(map(torch.from_numpy, one.ends_2m)) for key, one in edges.items()},
        num_nodes_dict={kind: len(ids) for kind, ids in names.items()},
    )
    graph.external_id = names
    for kind in names:
        for name, values in node_columns(prepared, kind).items():
            graph.nodes[kind].data[name] = torch.from_numpy(values)
    for key, one in edges.items():
        for name, values in one.columns.items():
            graph.edges[key].data[name] = torch.from_numpy(
                values.astype("int64") if name == "category" else values.copy()
            )
    return graph
