"""`Schema`: the kinds of nodes of a graph and the relations between them, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dist_gat.base.errors import StorageError
from dist_gat.config.data_sections import REVERSED
from dist_gat.config.task_sections import FIRST_RELATION

# names of node types and relations, which are also names of files and folders
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
COLUMNS = ("category", "weight", "time")


@dataclass(frozen=True)
class Relation:
    """Edges from nodes of one type, `source`, to nodes of another, `target`.

    has_pairs: whether a task can predict its edges. messages: whether nodes attend along it. directed: only its sources
    do, to its targets; else both ways. columns: what an edge carries, of `COLUMNS`. categories: their names; an edge
    has the number of one.
    """

    name: str
    source: str
    target: str
    has_pairs: bool = True
    messages: bool = True
    directed: bool = False
    columns: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class EdgeType:
    """One way along a relation: messages from nodes of type `source` to nodes of type `target`.

    backward: from the relation's targets to its sources, as from items to the users who met them.
    """

    relation: Relation
    source: str
    target: str
    backward: bool

    @property
    def name(self) -> str:
        """The relation's, or that and `_reversed`."""
        return f"{self.relation.name}{'' if self.backward else REVERSED}"

    @property
    def settings(self) -> tuple[str, str]:
        """The names under which a recipe has settings of it: of the relation, and of this way alone."""
        of_relation = self.relation.name.partition("-")[0]
        return of_relation, f"{of_relation}{'' if self.backward else REVERSED}"

    @property
    def is_symmetric(self) -> bool:
        """Whether it has each edge of its relation both ways."""
        return self.relation.source == self.relation.target and not self.relation.directed


@dataclass(frozen=True)
class Schema:
    """node_types: in the order of their node IDs inside a part. relations: between these types."""

    node_types: tuple[str, ...]
    relations: tuple[Relation, ...]

    @cached_property
    def edge_types(self) -> tuple[EdgeType, ...]:
        """All ways that messages go. A relation of a type with itself is one, which has each edge both ways unless it
        is directed."""
        found = []
        for relation in self.relations:
            if relation.messages:
                found.append(EdgeType(relation, relation.target, relation.source, True))
                if not relation.directed and relation.source != relation.target:
                    found.append(EdgeType(relation, relation.source, relation.target, False))
        return tuple(found)

    def into(self, node_type: str) -> tuple[int, ...]:
        """The numbers of the edge types that lead to nodes of one type, in the order of their rows in a part.

        The degree of a node is how many edges of the first of them it has: of users and items, interactions.
        """
        return tuple(number for number, one in enumerate(self.edge_types) if one.target == node_type)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """By node type: how many edge types lead to it, and so how many rows a node has."""
        return tuple(len(self.into(kind)) for kind in self.node_types)

    @cached_property
    def slot_of(self) -> tuple[int, ...]:
        """By edge type: its place among those that lead to the same node type."""
        return tuple(self.into(one.target).index(number) for number, one in enumerate(self.edge_types))

    @cached_property
    def has_time(self) -> tuple[bool, ...]:
        """By edge type: whether its edges have times."""
        return tuple("time" in one.relation.columns for one in self.edge_types)

    @cached_property
    def edge_columns(self) -> tuple[str, ...]:
        """What edges carry: those of `COLUMNS` that any relation with messages has."""
        found = {name for one in self.edge_types for name in one.relation.columns}
        return tuple(name for name in COLUMNS if name in found)

    def read_by(self, node_type: str) -> frozenset[str]:
        """The types whose nodes send messages to nodes of one type."""
        return frozenset(one.source for one in self.edge_types if one.target == node_type)

    def to_plain(self) -> dict[str, Any]:
        """What a manifest records; `read_schema` reads it."""
        return {"node_types": list(self.node_types), "relations": [asdict(relation) for relation in self.relations]}


# the schema of a table of interactions
INTERACTIONS = Schema(("user", "item"), (Relation(FIRST_RELATION, "user", "item"),))


def read_schema(manifest: Mapping[str, Any], file: Path, remedy: str) -> Schema:
    """The schema that a manifest records. Raises `StorageError` where it is missing or invalid."""
    found: Any = manifest.get("schema")
    try:
        schema = Schema(tuple(found["node_types"]), tuple(_relation(fields) for fields in found["relations"]))
        names = [*schema.node_types, *(relation.name for relation in schema.relations)]
        fits = all(NAME.fullmatch(name) for name in names) and schema.relations and len(set(names)) == len(names)
        fits = fits and all(set(relation.columns) <= set(COLUMNS) for relation in schema.relations)
        ends = {end for relation in schema.relations for end in (relation.source, relation.target)}
    except (TypeError, KeyError):
        fits, ends = False, set()
    if not fits or not ends <= set(schema.node_types):
        raise StorageError(
            f"{file}: expected a schema with node_types and relations between these, each with name, source and "
            f"target; found {str(found)[:80]}; {remedy}"
        )
    return schema


def _relation(fields: Mapping[str, Any]) -> Relation:
    lists = {name: tuple(fields.get(name, ())) for name in ("columns", "categories")}
    return Relation(**{**fields, **lists})
