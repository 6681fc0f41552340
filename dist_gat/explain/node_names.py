"""`NodeNames`: what nodes are called outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dist_gat.serve.saved_model import SavedModel


class NodeNames:
    """External IDs, and titles where the data set has some, of int64 [n] nodes."""

    def __init__(self, saved: SavedModel, nodes: np.ndarray) -> None:
        self.nodes, self.ranges = nodes, saved.ranges
        self.type_of = saved.ranges.type_of(nodes)
        wanted = pl.col("node_id").is_in(pl.Series(nodes).implode())
        self.rows = {
            kind: {row["node_id"]: row for row in saved.ids(kind).filter(wanted).to_dicts()}
            for kind in saved.ranges.node_types
        }

    def are(self, kind: str) -> np.ndarray:
        """bool [n]: which nodes are of a type."""
        return self.type_of == self.ranges.index_of(kind)

    def of(self, place: int) -> dict[str, Any]:
        kind = self.ranges.node_types[int(self.type_of[place])]
        row = self.rows[kind][int(self.nodes[place])]
        return {f"{kind}_id": row["external_id"], **({"title": row["title"]} if "title" in row else {})}

    def of_node(self, node: int) -> dict[str, Any]:
        """Of one of the nodes, which must ascend."""
        return self.of(int(np.searchsorted(self.nodes, node)))
