"""Recipes and graphs of the tests of plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import recipes
from helpers import INTERACTS, USER

from dist_gat.config.sections import Config
from dist_gat.graph.part import PreparedGraph
from dist_gat.plan.graph_shape import GraphShape


def recipe(
    prepared: PreparedGraph | None = None,
    fanouts: list[int] | None = None,
    batch_size: int = 256,
    num_parts: int = 4,
    access: str = "auto",
    **model: Any,
) -> Config:
    return recipes.recipe(
        Path("none"),
        data={"prepared": str(prepared.folder) if prepared else "none"},
        parts={"num_parts": num_parts, "method": "metis"},
        sampling={"fanouts": [10, 10] if fanouts is None else fanouts, "access": access},
        model=model,
        train={"batch_size": batch_size},
    )


def graph_of(prepared: PreparedGraph) -> GraphShape:
    """The shape that the fixture `skewed` was drawn from."""
    nodes = prepared.ranges
    return GraphShape(nodes.num_nodes, prepared.num_pairs(INTERACTS, "train"), nodes.count(USER) / nodes.num_nodes)
