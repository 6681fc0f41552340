"""`Schema`: the kinds of nodes of a graph and the relations between them, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dist_gat.base.errors import StorageError
from dist_gat.config.task_sections import FIRST_RELATION

# names of node types and relations, which are also names of files and folders
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Relation:
    """Edges from nodes of one type, `source`, to nodes of another, `target`. Messages go both ways along each."""

    name: str
    source: str
    target: str


@dataclass(frozen=True)
class Schema:
    """node_types: in the order of their node IDs inside a part. relations: between these types."""

    node_types: tuple[str, ...]
    relations: tuple[Relation, ...]

    def read_by(self, node_type: str) -> frozenset[str]:
        """The types whose nodes send messages to nodes of one type."""
        ends = [(relation.source, relation.target) for relation in self.relations]
        return frozenset(near for own, near in [*ends, *(pair[::-1] for pair in ends)] if own == node_type)

    def to_plain(self) -> dict[str, Any]:
        """What a manifest records; `read_schema` reads it."""
        return {"node_types": list(self.node_types), "relations": [asdict(relation) for relation in self.relations]}


# the schema of a table of interactions
INTERACTIONS = Schema(("user", "item"), (Relation(FIRST_RELATION, "user", "item"),))


def read_schema(manifest: Mapping[str, Any], file: Path, remedy: str) -> Schema:
    """The schema that a manifest records. Raises `StorageError` where it is missing or invalid."""
    found: Any = manifest.get("schema")
    try:
        schema = Schema(tuple(found["node_types"]), tuple(Relation(**fields) for fields in found["relations"]))
        names = [*schema.node_types, *(relation.name for relation in schema.relations)]
        fits = all(NAME.fullmatch(name) for name in names) and schema.relations and len(set(names)) == len(names)
        ends = {end for relation in schema.relations for end in (relation.source, relation.target)}
    except (TypeError, KeyError):
        fits, ends = False, set()
    if not fits or not ends <= set(schema.node_types):
        raise StorageError(
            f"{file}: expected a schema with node_types and relations between these, each with name, source and "
            f"target; found {str(found)[:80]}; {remedy}"
        )
    return schema
