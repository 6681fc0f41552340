"""`read_new_edges`: tables of relations that name new items, of the form that the recipe has for these relations.

They go the way of `prepare`: the same reader, the same rules for pairs that come again. A row joins a new node with one
of the graph; others are left out and counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.free_memory import free_memory
from dist_gat.data.distinct_pairs import Rows, distinct_pairs
from dist_gat.data.edge_file import Columns
from dist_gat.data.engine import Engine, named, parquet
from dist_gat.data.relations import open_relation
from dist_gat.data.table import CATEGORY, IDS, Table
from dist_gat.data.text_table import ROW
from dist_gat.data.vocabulary import EXACT
from dist_gat.evaluate.new_user_metrics import History
from dist_gat.graph.schema import EdgeType
from dist_gat.serve.joined_nodes import JoinedNodes
from dist_gat.serve.saved_model import SavedModel

EdgeRows = Path | str | pl.DataFrame
NO_EDGES: Mapping[str, EdgeRows] = {}
TABLE = "new edges"  # stands for a data frame


def read_new_edges(
    tables: Mapping[str, EdgeRows], joined: JoinedNodes, names: Sequence[str], progress: Callable[[str], None]
) -> dict[str, dict[int, History]]:  # fmt: skip
    """By new node and edge type, what the tables join it with. tables: by relation. names: of the new nodes.

    Raises `DataError` for a relation that can't be given so, and for what can't be read.
    """
    found: dict[str, dict[int, History]] = {}
    for relation, table in tables.items():
        where = f"new edges of {relation}"
        way, edge_type = joined.along(relation, where)
        config = joined.model.config.data.relations.get(relation)
        if config is None or config.same_as is not None:
            raise DataError(
                f"{where}: some of its nodes are items under other names (same_as), which a table of new edges can't "
                'say; give the edges beside each item, as "relations": {"' + relation + '": [{"id": ..., ...}]}'
            )
        for name, history in _histories(table, joined, edge_type, names, where, progress):
            found.setdefault(name, {})[way] = history
    return found


def without_both(
    of_tables: Mapping[int, History], given: Mapping[int, History], model: SavedModel, where: str
) -> Mapping[int, History]:
    """Those of tables. Raises `DataError` where the node itself names such a relation too."""
    for way in of_tables.keys() & given.keys():
        name = model.schema.edge_types[way].relation.name
        raise DataError(f"{where}: relations.{name}: its edges are in a table too; give them in one place")
    return of_tables


def _histories(
    rows: EdgeRows, joined: JoinedNodes, edge_type: EdgeType, names: Sequence[str], where: str,
    progress: Callable[[str], None],
) -> list[tuple[str, History]]:  # fmt: skip
    """Of each new node that the table names."""
    data, relation = joined.model.config.data, edge_type.relation
    is_frame = isinstance(rows, pl.DataFrame)
    file = TABLE if is_frame else str(Path(rows).absolute())  # type: ignore[arg-type]
    config = data.relations[relation.name].model_copy(update={"table": file})
    with (
        tempfile.TemporaryDirectory(prefix="dist-gat-edges-") as work,
        Engine(Path(work), free_memory() // 4) as engine,
    ):
        table = open_relation(engine, relation.name, config, data, {TABLE: rows} if is_frame else None)
        found = {*table.labels, *([CATEGORY] if table.has_category else []), *(["time"] if table.unit else [])}
        if lacking := [name for name in relation.columns if name not in found]:
            raise DataError(
                f"{where}: {table.source.name}: no {lacking[0]}, which its edges have; expected the columns of the "
                "relation's own table"
            )
        ids = joined.model.ids(edge_type.source)
        _numbered(engine, "new", names, range(len(names)))
        _numbered(engine, "known", ids["external_id"].cast(pl.String), ids["node_id"])
        _numbered(engine, CATEGORY, relation.categories, range(len(relation.categories)))
        # a new node is the destination; a symmetric relation has each edge both ways
        ways = (False, True) if edge_type.is_symmetric else (not edge_type.backward,)
        read = [_joined(engine, table, edge_type, turned, len(names), data.repeated) for turned in ways]
    if num_left := table.num_rows - sum(num_rows for _, num_rows in read):
        progress(
            f"{where}: {num_left:,} of {table.num_rows:,} rows don't join a new {joined.kind} with a "
            f"{edge_type.source} that the model knows; they are left out"
        )
    edges = {name: np.concatenate([columns[name] for columns, _ in read]) for name in read[0][0]}
    keys = np.stack([edges[name] for name in ("source", "target", CATEGORY) if name in edges])
    _, first = np.unique(keys, axis=1, return_index=True)
    edges = {name: values[first] for name, values in edges.items()}
    bounds = np.searchsorted(edges["source"], np.arange(len(names) + 1))
    return [
        (name, _history(name, {key: values[start:stop] for key, values in edges.items()}))
        for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
        if stop > start
    ]


def _history(name: str, edges: Columns) -> History:
    return History(name, edges["target"], edges.get("weight"), edges.get("time"), categories=edges.get(CATEGORY))


def _joined(
    engine: Engine, table: Table, edge_type: EdgeType, turned: bool, num_names: int, repeated: str
) -> tuple[Columns, int]:  # fmt: skip
    """`source`, the number of a new node, `target`, one of the graph, and what edges carry, one of each pair as
    `prepare` would have it; and how many rows these are of. turned: the new nodes are the targets of the table."""
    new, known = reversed(IDS) if turned else IDS
    relation = edge_type.relation
    joins = []
    for name, end in (("new", new), ("known", known)):
        key = _text(f"r.{end}", table.id_types[end])
        joins.append(f"join {parquet(engine.work / f'{name}.parquet')} {name} on {name}.key = {key}")
    given = "".join(f", r.{named(label)}::double as {named(label)}" for label in table.labels)
    given += ", r.time" if table.unit is not None else ""
    if table.has_category:
        # those of the other way come after those of this one
        shift = len(relation.categories) if turned and edge_type.is_symmetric else 0
        given += f", ({CATEGORY}.n + {shift})::usmallint as {CATEGORY}"
        joins.append(f"join {parquet(engine.work / f'{CATEGORY}.parquet')} {CATEGORY} on {CATEGORY}.key = r.{CATEGORY}")
    sql = f"select new.n as source, known.n as target, r.{ROW}{given} from {table.rows} r {' '.join(joins)}"
    rows = Rows(sql, table.labels, table.unit is not None, (CATEGORY,) if table.has_category else ())
    key = f"{relation.name}-{'turned' if turned else 'own'}"
    file, repeats, _ = distinct_pairs(engine, key, rows, num_names, repeated, table.source.name)
    columns = file.read(0, file.count)
    whole = {name: columns[name].astype(np.int64) for name in ("source", "target", CATEGORY) if name in columns}
    return columns | whole, file.count + repeats.count


def _numbered(engine: Engine, name: str, keys: Sequence[str] | pl.Series, numbers: Sequence[int] | pl.Series) -> None:
    """A table of `key` and `n`."""
    frame = pl.DataFrame({"key": keys, "n": numbers}, schema={"key": pl.String, "n": pl.UInt32})
    frame.write_parquet(engine.work / f"{name}.parquet")


def _text(column: str, kind: str) -> str:
    """SQL for an ID as text, that of a whole number without its point."""
    if kind != "DOUBLE":
        return f"{column}::varchar"
    whole = f"{column} = floor({column}) and abs({column}) < {EXACT}"
    return f"case when {whole} then {column}::bigint::varchar else {column}::varchar end"
