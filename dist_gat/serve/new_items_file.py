"""New items as a user gives them: JSON lines, a table, or Python dictionaries, checked and turned into `NewItem`.

A line is {"item": "x", "columns": {"year": 2024}}, and may have "users", those who have met it, and "relations", the
nodes that it is joined with, as {"tags": ["a", "b"]}. A table has the column item_id and those of items, by their names
or as columns.NAME, with a row for each item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.serve.given_nodes import Given, NewRows, check_id, columns_of_table, given_nodes
from dist_gat.serve.new_columns import tell
from dist_gat.serve.new_items import NewItem, NewItemRows, rows_of_new_items
from dist_gat.serve.new_nodes import NewNodes

KEYS = ("item", "columns", "users", "relations")
EXPECTED = 'expected {"item": "x"}, and if known "columns": {...}, "users": ["u"] and "relations": {"tags": ["a"]}'


def new_item_rows(source: NewRows, nodes: NewNodes, progress: Callable[[str], None]) -> NewItemRows | None:
    """None for no items. Raises `DataError` for what can't be read."""
    items = read_new_items(source, nodes, progress)
    return rows_of_new_items(nodes, items) if items else None


def read_new_items(source: NewRows, nodes: NewNodes, progress: Callable[[str], None]) -> list[NewItem]:
    """In the order of the source. A neighbour that comes again counts once; those that training never saw are left out,
    and `progress` is told. Raises `DataError` for what can't be read."""
    model = nodes.model
    columns = replace(nodes.columns[model.relation.target], notes=[])
    given = given_nodes(source, "item", EXPECTED, lambda table, where: _of_table(table, where, columns.names))
    joined = _Joined(nodes)
    found, seen, bare = [], set[str](), []
    for where, item in given:
        _check(item, where)
        name = check_id(item["item"], where)
        if name in seen or nodes.ids(model.relation.target).find_texts([name])[0] >= 0:
            again = "again; expected each new item once" if name in seen else "is known to the model; leave it out"
            raise DataError(f"{where}: item {shown(name)} {again}")
        seen.add(name)
        users = joined.find(model.relation.source, item.get("users") or [], where)
        of_relations = dict(item.get("relations") or {})
        neighbors = {way: History(name, users) for way in joined.ways(model.relation.name)} if len(users) else {}
        for relation, others in of_relations.items():
            way, kind = joined.along(relation, where)
            neighbors[way] = History(name, joined.find(kind, others, where))
        row_W = columns.row(item.get("columns"), where)
        if row_W is None and not any(len(one.items) for one in neighbors.values()):
            bare.append(name)
        found.append(NewItem(name, row_W, neighbors, users))
    tell([*columns.notes, *joined.notes], progress)
    if bare:
        examples = ", ".join(map(shown, bare[:NUM_EXAMPLES]))
        progress(f"nothing that the model reads is known of {len(bare):,} new items, for example {examples}")
    return found


class _Joined:
    """Nodes that items are joined with, by relation and external ID. notes: what was left out."""

    def __init__(self, nodes: NewNodes) -> None:
        self.nodes, self.model, self.schema = nodes, nodes.model, nodes.schema
        self.notes: list[str] = []

    def ways(self, relation: str) -> list[int]:
        """The edge type along which items hear of a relation's other ends; none where it carries them no messages."""
        into = self.schema.into(self.model.relation.target)
        return [number for number in into if self.schema.edge_types[number].relation.name == relation]

    def along(self, relation: Any, where: str) -> tuple[int, str]:
        """The edge type of a relation, and the type of the nodes at its other end. Raises `DataError`."""
        own = self.model.relation.name
        found = self.ways(relation) if relation != own else []
        if not found:
            into = self.schema.into(self.model.relation.target)
            names = [self.schema.edge_types[number].relation.name for number in into]
            expected = ", ".join(name for name in dict.fromkeys(names) if name != own) or "none"
            raise DataError(
                f"{where}: relations.{relation}: items have no messages along it; expected {expected}; who has met the "
                "item stands in `users`"
            )
        if "category" in self.schema.edge_types[found[0]].relation.columns:
            raise DataError(f"{where}: relations.{relation}: its edges have categories, which new items can't give yet")
        return found[0], self.schema.edge_types[found[0]].source

    def find(self, kind: str, others: Any, where: str) -> np.ndarray:
        """int64: nodes of one type, each once, ascending. Raises `DataError` for what is no list of IDs."""
        if not isinstance(others, list):
            raise DataError(f"{where}: {str(others)[:80]}: expected a list of {plural(kind)}; {EXPECTED}")
        names = [check_id(other, where) for other in others]
        found = self.nodes.ids(kind).find_texts(names)
        unknown = [name for name, node in zip(names, found.tolist(), strict=True) if node < 0]
        if unknown:
            examples = ", ".join(map(shown, unknown[:NUM_EXAMPLES]))
            self.notes.append(f"{where}: {plural(kind)} are unknown to the model and left out: {examples}")
        return np.unique(found[found >= 0])


def _of_table(table: pl.DataFrame, where: str, names: Sequence[str]) -> list[Given]:
    if "item_id" not in table.columns:
        found = ", ".join(map(shown, table.columns))
        raise DataError(f"{where}: no column item_id; found {found}; expected item_id and columns of items")
    own = columns_of_table(table, names, ["item_id"], where)
    return [
        (f"{where}, item {row['item_id']}",
         {"item": row["item_id"], "columns": {name: row[column] for name, column in own.items()}})
        for row in table.iter_rows(named=True)
    ]  # fmt: skip


def _check(item: Any, where: str) -> None:
    """Raise `DataError` unless it is a dictionary with the keys that are known."""
    if not isinstance(item, Mapping) or "item" not in item:
        raise DataError(f"{where}: found {str(item)[:80]}; {EXPECTED}")
    if more := [key for key in item if key not in KEYS]:
        raise DataError(f"{where}: unknown key {shown(str(more[0]))}; {EXPECTED}")
    if not isinstance(item.get("relations") or {}, Mapping):
        raise DataError(f"{where}: relations={str(item['relations'])[:80]}: {EXPECTED}")
