"""Recipes and graphs of the tests of plans."""

from __future__ import annotations

from typing import Any

from helpers import INTERACTS, USER

from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config
from dist_gat.graph.part import PreparedGraph
from dist_gat.plan.workload import GraphShape


def recipe(
    prepared: PreparedGraph | None = None,
    fanouts: list[int] | None = None,
    batch_size: int = 256,
    num_parts: int = 4,
    access: str = "auto",
    **model: Any,
) -> Config:
    return parse_config(
        {
            "name": "plan",
            "data": {"interactions": "none", "prepared": str(prepared.folder) if prepared else "none"},
            "parts": {"num_parts": num_parts},
            "sampling": {"fanouts": [10, 10] if fanouts is None else fanouts, "access": access},
            "negatives": {"num_shared": 64},
            "model": {"embedding_size": 16, **model},
            "train": {"batch_size": batch_size},
            "launch": {"launcher": "local", "num_workers": 1, "threads_per_worker": 1},
        }
    )


def graph_of(prepared: PreparedGraph) -> GraphShape:
    """The shape that the fixture `skewed` was drawn from."""
    nodes = prepared.ranges
    return GraphShape(nodes.num_nodes, prepared.num_pairs(INTERACTS, "train"), nodes.count(USER) / nodes.num_nodes)
