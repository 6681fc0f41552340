"""What an edge of a user carries, in the units of the data, and how recent it is."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np

from dist_gat.explain.neighborhood import Neighborhood
from dist_gat.sampling.edge_columns import MICROSECONDS, first_alike


def edge_facts(near: Neighborhood, place: int, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Of some edges of a node, by their numbers among its edges: `relation` and, where the relation has them,
    `category`, `value` (its rating or weight), `time` (UTC), `seconds_before_newest`, and `rank`, 1 for the newest.

    Seconds and ranks count among the node's edges of this relation in the training graph.
    """
    edges = near.edges_of(place)
    stored = {name: values[edges] for name, values in near.stored.items()}
    first_d = first_alike(stored["kind"], np.array([edges.stop - edges.start]))
    found = []
    for edge in chosen.tolist():
        relation = near.schema.edge_types[int(stored["kind"][edge])].relation
        facts: dict[str, Any] = {"relation": relation.name}
        if "category" in relation.columns:
            facts["category"] = category_name(relation.categories, int(stored["category"][edge]))
        if "weight" in relation.columns:
            facts["value"] = float(stored["weight"][edge])
        if "time" in relation.columns:
            newest = int(first_d[edge])
            time, last = (
                datetime.fromtimestamp(int(stored["time"][at]) * MICROSECONDS, timezone.utc) for at in (edge, newest)
            )
            facts["time"] = time.isoformat(timespec="seconds")
            facts |= {"seconds_before_newest": (last - time).total_seconds(), "rank": edge - newest + 1}
        found.append(facts)
    return found


def category_name(categories: tuple[str, ...], number: int) -> str:
    """The name of a category; an edge that its table has the other way round has its number beyond theirs."""
    name = categories[number % len(categories)]
    return name if number < len(categories) else f"{name} (reversed)"
