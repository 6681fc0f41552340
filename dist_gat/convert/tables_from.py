"""Tables of edges, for `prepare`, from a graph of NetworkX or a `HeteroData` of PyG."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.config.task_sections import FIRST_RELATION

SIDES = ("user", "item")  # of a bipartite graph, by the attribute `bipartite` of its nodes


def tables_from(graph: Any) -> dict[str, pl.DataFrame]:
    """A table of edges by relation, as `prepare` takes them: columns `user_id`, `item_id` and the like, named by the
    types of the ends, or `source`, `target` where these are one type; then what the edges carry.

    graph: a `HeteroData`, whose types have lists `external_id`, or else nodes are numbers; or a graph of NetworkX as
    `to_networkx` makes it, or bipartite as NetworkX has them: nodes with `bipartite` are users where it is 0 and items
    where it is 1, and all edges are of one relation, `interacts`. Raises `DataError` for anything else.
    """
    if hasattr(graph, "edge_types") and hasattr(graph, "node_types"):
        return {
            relation: hetero_table(graph, (source, relation, target)) for source, relation, target in graph.edge_types
        }
    if hasattr(graph, "edges") and hasattr(graph, "is_multigraph"):
        return networkx_tables(graph)
    raise DataError(
        f"a {type(graph).__name__} is no graph that is known; expected one of NetworkX or a HeteroData of PyG"
    )


def end_columns(source: str, target: str) -> tuple[str, str]:
    """Those that a recipe expects by default, where the types differ."""
    return ("source", "target") if source == target else (f"{source}_id", f"{target}_id")


def hetero_table(data: Any, edge_type: tuple[str, str, str]) -> pl.DataFrame:
    source, _, target = edge_type
    store = data[edge_type]
    found: dict[str, Any] = {}
    for name, kind, places in zip(
        end_columns(source, target), (source, target), store.edge_index.tolist(), strict=True
    ):
        ids = data[kind].get("external_id")
        found[name] = [str(place) for place in places] if ids is None else [ids[place] for place in places]
    for name, values in store.items():
        if name != "edge_index" and getattr(values, "ndim", 0) == 1 and len(values) == store.num_edges:
            found[name] = values.cpu().numpy()
    if "category" in found and "category_names" in store:
        found["category"] = [store.category_names[code] for code in found["category"]]
    return pl.DataFrame(found)


def networkx_tables(graph: Any) -> dict[str, pl.DataFrame]:
    nodes = {node: named_node(node, known) for node, known in graph.nodes(data=True)}
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for one, other, known in graph.edges(data=True):
        ends = nodes[one], nodes[other]
        # an edge of an undirected graph has no direction to go by
        if ends[0][0] == SIDES[1] and ends[1][0] == SIDES[0]:
            ends = ends[1], ends[0]
        (source, source_id), (target, target_id) = ends
        names = end_columns(source, target)
        values = {name: value for name, value in known.items() if name != "relation"}
        relation = known.get("relation", FIRST_RELATION)
        rows[source, relation, target].append({names[0]: source_id, names[1]: target_id} | values)
    named = [relation for _, relation, _ in rows]
    if len(set(named)) < len(named):
        raise DataError(
            f"relations join several pairs of types: {', '.join(map(str, rows))}; give each a name of its own"
        )
    return {relation: pl.DataFrame(found, infer_schema_length=None) for (_, relation, _), found in rows.items()}


def named_node(node: Any, known: dict[str, Any]) -> tuple[str, str]:
    """Its type and its ID."""
    if "node_type" in known:
        return known["node_type"], str(known.get("external_id", node))
    if known.get("bipartite") not in (0, 1):
        raise DataError(f"node {node!r}: has neither node_type nor bipartite, 0 for users and 1 for items")
    return SIDES[known["bipartite"]], str(node)
