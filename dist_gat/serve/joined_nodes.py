"""`JoinedNodes`: the nodes of the graph that new ones are joined with, by relation and external ID.

A neighbour is an ID, or where edges carry something, {"id": "t1", "weight": 2, "time": "2024-01-31", "category": "r"}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.graph.schema import EdgeType
from dist_gat.serve.given_nodes import check_id, numbers_of, times_of
from dist_gat.serve.nearest_known import NearestKnown
from dist_gat.serve.new_nodes import NewNodes
from dist_gat.serve.saved_model import SavedModel

CARRIED = ("weight", "time", "category")
EDGE = 'expected {"id": "a"}, and where the relation\'s edges have them "weight", "time" and "category"'


@dataclass
class JoinedNodes:
    """kind: of the new nodes. expected: of one of them, for messages. notes: what was left out."""

    nodes: NewNodes
    kind: str
    expected: str
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> SavedModel:
        return self.nodes.model

    def ways(self, relation: str) -> list[int]:
        """The edge type along which new nodes hear of a relation's other ends; none where it carries them no
        messages."""
        edge_types = self.model.schema.edge_types
        return [number for number in self.model.schema.into(self.kind) if edge_types[number].relation.name == relation]

    def along(self, relation: Any, where: str) -> tuple[int, EdgeType]:
        """The edge type of a relation whose ends can be given. Raises `DataError`."""
        own, edge_types = self.model.relation.name, self.model.schema.edge_types
        found = self.ways(relation) if relation != own and relation not in self._made_from_columns else []
        if not found:
            names = [edge_types[number].relation.name for number in self.model.schema.into(self.kind)]
            names = [name for name in names if name != own and name not in self._made_from_columns]
            met = "who has met the item stands in `users`" if self.kind == self.model.relation.target else (
                "what the user has met stands in `items`"
            )  # fmt: skip
            why = "its edges are made from columns, which say it alone" if relation in self._made_from_columns else (
                f"{plural(self.kind)} have no messages along it"
            )  # fmt: skip
            raise DataError(
                f"{where}: relations.{relation}: {why}; expected {', '.join(dict.fromkeys(names)) or 'none'}; {met}"
            )
        return found[0], edge_types[found[0]]

    def histories(self, name: str, given: Any, where: str) -> dict[int, History]:
        """By edge type, what a new node hears of along the relations that it names. Raises `DataError`."""
        if not isinstance(given or {}, Mapping):
            raise DataError(f"{where}: relations={str(given)[:80]}: {self.expected}")
        found = {}
        for relation, others in dict(given or {}).items():
            way, edge_type = self.along(relation, where)
            found[way] = self._history(name, edge_type, others, f"{where}: relations.{relation}")
        return found

    def find(self, kind: str, others: Any, where: str) -> np.ndarray:
        """int64: nodes of one type, each once, ascending. Raises `DataError` for what is no list of IDs."""
        return np.unique(self._nodes(kind, [check_id(one, where) for one in self._listed(kind, others, where)], where))

    def nearest(self, name: str, columns_W: np.ndarray | None) -> dict[int, History]:
        """By edge type, the nodes that are most like a new one."""
        if columns_W is None:
            return {}
        return {way: known.of(name, columns_W) for way, known in self._nearest.items()}

    @cached_property
    def _made_from_columns(self) -> list[str]:
        return [name for name, one in self.model.config.data.relations.items() if one.nearest is not None]

    @cached_property
    def _nearest(self) -> dict[int, NearestKnown]:
        """By edge type."""
        found = {}
        for relation in self._made_from_columns:
            nearest = self.model.config.data.relations[relation].nearest
            assert nearest is not None, "it is made from columns"
            for way in self.ways(relation):
                found[way] = self.nodes.nearest(tuple(nearest.columns), nearest.k)
        return found

    def _listed(self, kind: str, others: Any, where: str) -> list[Any]:
        if not isinstance(others, list):
            raise DataError(f"{where}: {str(others)[:80]}: expected a list of {plural(kind)}; {self.expected}")
        return others

    def _history(self, name: str, edge_type: EdgeType, others: Any, where: str) -> History:
        """Of equal neighbours the first counts."""
        kind, relation = edge_type.source, edge_type.relation
        edges = [
            one if isinstance(one, Mapping) else {"id": one} for one in self._listed(kind, others, where)
        ]  # fmt: skip
        carried = [key for key in CARRIED if any(one.get(key) is not None for one in edges)]
        for edge in edges:
            if "id" not in edge or any(key not in ("id", *CARRIED) for key in edge):
                raise DataError(f"{where}: {str(edge)[:80]}; {EDGE}")
            if lacking := [key for key in carried if edge.get(key) is None]:
                raise DataError(f"{where}: {str(edge)[:80]} has no {lacking[0]}, which others have; give it for all")
        for key in carried:
            if key not in relation.columns:
                raise DataError(f"{where}: edges of {relation.name} have no {key}; leave it out")
        if edges and relation.categories and "category" not in carried:
            raise DataError(f"{where}: edges of {relation.name} have categories; {EDGE}")
        lists = {f"{key}s": [edge[key] for edge in edges] for key in carried if key != "category"}
        weights, times = numbers_of(lists, "weights", where), times_of(lists, where)
        categories = None
        if "category" in carried:
            categories = self._categories(edge_type, [edge["category"] for edge in edges], where)
        nodes = self._nodes(kind, [check_id(edge["id"], where) for edge in edges], where, drop=False)
        whole = History(
            name, nodes, None if weights is None else weights.astype(np.float32), times, categories=categories
        )  # fmt: skip
        keys = np.stack([nodes, np.zeros(len(nodes), np.int64) if categories is None else categories])
        _, first = np.unique(keys, axis=1, return_index=True)
        return whole.part(first[(keys[:, first] >= 0).all(axis=0)])

    def _categories(self, edge_type: EdgeType, names: Sequence[Any], where: str) -> np.ndarray:
        """int64: their numbers; -1 where training knows none."""
        places = {name: number for number, name in enumerate(edge_type.relation.categories)}
        found = [places.get(check_id(name, where), -1) for name in names]
        if unknown := [str(name) for name, place in zip(names, found, strict=True) if place < 0]:
            examples = ", ".join(map(shown, unknown[:NUM_EXAMPLES]))
            self.notes.append(f"{where}: categories are unknown to the model, and their edges left out: {examples}")
        return np.array(found, np.int64)

    def _nodes(self, kind: str, names: Sequence[str], where: str, drop: bool = True) -> np.ndarray:
        """int64, in their order. drop: without those that the model doesn't know, which are -1 otherwise."""
        nodes = self.nodes.ids(kind).find_texts(names)
        if unknown := [name for name, node in zip(names, nodes.tolist(), strict=True) if node < 0]:
            examples = ", ".join(map(shown, unknown[:NUM_EXAMPLES]))
            self.notes.append(f"{where}: {plural(kind)} are unknown to the model and left out: {examples}")
        return nodes[nodes >= 0] if drop else nodes
