"""New items as a user gives them: JSON lines, a table, or Python dictionaries, checked and turned into `NewItem`.

A line is {"item": "x", "columns": {"year": 2024}}, and may have "users", those who have met it, and "relations", the
nodes that it is joined with, as {"tags": ["a", "b"]}, see `dist_gat.serve.joined_nodes`. A table has the column item_id
and those of items, by their names or as columns.NAME, with a row for each item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.serve.given_nodes import Given, NewRows, check_id, columns_of_table, given_nodes
from dist_gat.serve.joined_nodes import JoinedNodes
from dist_gat.serve.new_columns import tell
from dist_gat.serve.new_edges import NO_EDGES, EdgeRows, read_new_edges, without_both
from dist_gat.serve.new_items import NewItem, NewItemRows, rows_of_new_items
from dist_gat.serve.new_nodes import NewNodes

KEYS = ("item", "columns", "users", "relations")
EXPECTED = 'expected {"item": "x"}, and if known "columns": {...}, "users": ["u"] and "relations": {"tags": ["a"]}'


def new_item_rows(
    source: NewRows | None, nodes: NewNodes, progress: Callable[[str], None], edges: Mapping[str, EdgeRows] = NO_EDGES
) -> NewItemRows | None:
    """None for no items. Raises `DataError` for what can't be read, `ConfigError` for edges of no items."""
    if source is None and edges:
        raise ConfigError("new_edges: goes with new_items, whose edges they are; give these too")
    items = [] if source is None else read_new_items(source, nodes, progress, edges)
    return rows_of_new_items(nodes, items) if items else None


def read_new_items(
    source: NewRows, nodes: NewNodes, progress: Callable[[str], None], edges: Mapping[str, EdgeRows] = NO_EDGES
) -> list[NewItem]:
    """In the order of the source. A neighbour that comes again counts once; those that training never saw are left out,
    and `progress` is told. edges: tables of relations that name the new items, see `dist_gat.serve.new_edges`. Of
    relations that are made from columns (`nearest`), the neighbours are found. Raises `DataError` for what can't be
    read."""
    model = nodes.model
    kind = model.relation.target
    columns = replace(nodes.columns[kind], notes=[])
    given = given_nodes(source, "item", EXPECTED, lambda table, where: _of_table(table, where, columns.names))
    joined = JoinedNodes(nodes, kind, EXPECTED)
    seen = dict[str, str]()
    for where, item in given:
        _check(item, where)
        name = check_id(item["item"], where)
        if name in seen or nodes.ids(kind).find_texts([name])[0] >= 0:
            again = "again; expected each new item once" if name in seen else "is known to the model; leave it out"
            raise DataError(f"{where}: item {shown(name)} {again}")
        seen[name] = where
    of_tables = read_new_edges(edges, joined, list(seen), progress)
    found, bare = [], []
    for (where, item), name in zip(given, seen, strict=True):
        users = joined.find(model.relation.source, item.get("users") or [], where)
        neighbors = {way: History(name, users) for way in joined.ways(model.relation.name)} if len(users) else {}
        neighbors |= joined.histories(name, item.get("relations"), where)
        neighbors |= without_both(of_tables.get(name, {}), neighbors, model, where)
        row_W = columns.row(item.get("columns"), where)
        if row_W is None and not any(len(one.items) for one in neighbors.values()):
            bare.append(name)
        found.append(NewItem(name, row_W, neighbors | joined.nearest(name, row_W), users))
    tell([*columns.notes, *joined.notes], progress)
    if bare:
        examples = ", ".join(map(shown, bare[:NUM_EXAMPLES]))
        progress(f"nothing that the model reads is known of {len(bare):,} new items, for example {examples}")
    return found


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
