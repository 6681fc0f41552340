"""Edges beside the interactions: read, their ends found among known nodes, and new types of nodes from what they name.

An end of type user or item is one that the interactions have; a row that names another is left out and counted. Other
types have the nodes that the rows which are left name. Where a relation says that some of its entities are items
(`same_as`), its edges fall into pieces, one for each pair of types; an edge from an entity to an item is turned round,
and its category begins with `~`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import DataConfig, RelationConfig, SameAsConfig
from dist_gat.data.distinct_pairs import Repeats, Rows, distinct_pairs
from dist_gat.data.edge_file import EdgeFile
from dist_gat.data.engine import Engine, named, parquet
from dist_gat.data.source import open_beside
from dist_gat.data.table import CATEGORY, IDS, Table, read_table
from dist_gat.data.text_table import NUM_EXAMPLES, ROW, shown
from dist_gat.data.vocabulary import IdColumn, Vocabulary, build_vocabulary

MOST_CATEGORIES = 1 << 15
TURNED = "~"  # before the category of an edge that was turned round


@dataclass(frozen=True)
class Edges:
    """Those of one relation between two types. categories: their names, by number; none where edges have none."""

    source: str
    target: str
    categories: tuple[str, ...]
    file: EdgeFile
    repeats: Repeats


@dataclass(frozen=True)
class Related:
    """What the tables of relations hold. edges: by name of a relation, or of its piece. dropped: rows, by reason."""

    vocabularies: dict[str, Vocabulary]  # of the types that the interactions don't have
    edges: dict[str, Edges]
    dropped: dict[str, int]
    warnings: list[str]


def open_relation(
    engine: Engine, name: str, relation: RelationConfig, config: DataConfig, tables: Mapping[str, Any] | None
) -> Table:
    """Read and check the table of a relation. Raises `DataError`."""
    assert relation.table is not None, "one of `nearest` has none"
    setting = f"data.relations.{name}"
    given = {key: getattr(relation, key) for key in ("format", "query", "separator", "header", "quote", "encoding")}
    source = open_beside(relation.table, config, f"{setting}.table", tables, given)
    return read_table(
        engine, f"rows-relation-{name}", source, config, relation.columns, relation.ids, relation.where,
        setting=f"{setting}.columns",
    )  # fmt: skip


def relate(
    engine: Engine, config: DataConfig, tables: Mapping[str, Table], known: Mapping[str, Vocabulary],
    frames: Mapping[str, Any] | None,
) -> Related:  # fmt: skip
    """The edges of all relations that are no behaviours. tables: of these, by name. known: users and items.

    frames: tables in memory. Raises `DataError` where no row of a table has a node that the interactions know.
    """
    found = Related({}, {}, {}, [])
    ends = {name: _find_ends(engine, name, config, table, known, frames, found) for name, table in tables.items()}
    columns: dict[str, list[IdColumn]] = {}
    for name, table in tables.items():
        relation = config.relations[name]
        for end, kind in zip(IDS, (relation.source, relation.target), strict=True):
            if kind not in known:
                unlinked = f"(select * from {parquet(ends[name])} where {end}_n is null)"
                columns.setdefault(kind, []).append(IdColumn(table, end, unlinked))
    for kind, several in columns.items():
        found.vocabularies[kind] = build_vocabulary(engine, f"ids-{kind}", several)
    vocabularies = {**known, **found.vocabularies}
    for name, table in tables.items():
        _write_pieces(engine, name, config, table, ends[name], vocabularies, found)
    return found


def _find_ends(
    engine: Engine, name: str, config: DataConfig, table: Table, known: Mapping[str, Vocabulary],
    frames: Mapping[str, Any] | None, found: Related,
) -> Path:  # fmt: skip
    """A file of the rows whose users and items are known, with their numbers as `source_id_n` and `target_id_n`."""
    relation = config.relations[name]
    joins, chosen, numbers = [], [], []
    for end, kind in zip(IDS, (relation.source, relation.target), strict=True):
        number = "null::uinteger"
        if kind in known:
            key = known[kind].key(f"r.{end}", table.id_types[end])
            joins.append(f"left join {known[kind].numbers()} {end} on {end}.key = {key}")
            number = f"{end}.n"
            chosen.append(f"{number} is not null")
        elif relation.same_as is not None:
            aliases = _aliases(engine, name, relation.same_as, config, table, end, known, frames)
            joins.append(f"left join {aliases} {end} on {end}.alias = r.{end}")
            number = f"{end}.n"
        numbers.append(f"{number} as {end}_n")
    differ = ["r.source_id is distinct from r.target_id"] if relation.source == relation.target else []
    terms = [*chosen, *differ]
    where = f" where {' and '.join(terms)}" if terms else ""
    sql = f"select r.*, {', '.join(numbers)} from {table.rows} r {' '.join(joins)}"
    path = engine.write(f"ends-{name}", f"{sql}{where}", what=f"finding the nodes of {table.source.name}")
    count = engine.row(f"select count(*) as n from {parquet(path)}")["n"]
    if count < table.num_rows:
        _tell_unknown(engine, name, relation, table, count, sql, chosen, found)
    return path


def _aliases(
    engine: Engine, name: str, same_as: SameAsConfig, config: DataConfig, table: Table, end: str,
    known: Mapping[str, Vocabulary], frames: Mapping[str, Any] | None,
) -> str:  # fmt: skip
    """SQL for a table of `alias`, a name of the relation, and `n`, the node that it is."""
    vocabulary, kind = known[same_as.type], table.id_types[end]
    if same_as.table is None:
        return f"(select id::{kind} as alias, n from {vocabulary.external()})"
    setting = f"data.relations.{name}.same_as"
    source = open_beside(same_as.table, config, f"{setting}.table", frames)
    columns = config.relations[name].columns.model_copy(
        update={"category": None, "weight": None, "datetime": None, "labels": {}}
    )
    ids = same_as.id_column, same_as.alias_column
    links = read_table(engine, f"same-as-{name}", source, config, columns, ids, setting=setting)
    key = vocabulary.key("l.source_id", links.id_types["source_id"])
    return (
        f"(select l.target_id::{kind} as alias, min(v.n) as n from {links.rows} l "
        f"join {vocabulary.numbers()} v on v.key = {key} group by alias)"
    )


def _tell_unknown(
    engine: Engine, name: str, relation: RelationConfig, table: Table, count: int, sql: str, chosen: Sequence[str],
    found: Related,
) -> None:  # fmt: skip
    """Count what was left out. Raises `DataError` where that is everything."""
    kinds = [kind for kind in dict.fromkeys((relation.source, relation.target)) if kind in ("user", "item")]
    loops = 0
    if relation.source == relation.target:
        same = "source_id is not distinct from target_id"
        loops = engine.row(f"select count(*) as n from {table.rows} where {same}")["n"]
        if loops:
            found.dropped[f"edges of {name} from a node to itself"] = loops
    unknown = table.num_rows - count - loops
    first = f"{sql} where not ({' and '.join(chosen or ['false'])}) order by r.{ROW} limit {NUM_EXAMPLES}"
    examples = ", ".join(
        f"({shown(source)}, {shown(target)})" for source, target in engine.frame(first).select(IDS).iter_rows()
    )
    what = " or ".join(plural(kind) for kind in kinds)
    if loops == table.num_rows:
        raise DataError(
            f"{table.source.name}: all {loops:,} rows of relation {name} lead from a node to itself; expected two "
            f"nodes in the columns {' and '.join(relation.ids)}; name the right ones with "
            f"data.relations.{name}.columns"
        )
    if not count:
        raise DataError(
            f"{table.source.name}: no row of relation {name} has known ends; its first are {examples}; expected {what} "
            f"of the interactions; name the right columns with data.relations.{name}.columns, or write the IDs in one "
            "way"
        )
    if unknown:
        found.dropped[f"edges of {name} to unknown {what}"] = unknown
        found.warnings.append(
            f"{unknown:,} of {table.num_rows:,} rows of {table.source.name} name {what} that no interaction has, for "
            f"example {examples}; they are left out"
        )


class Piece(NamedTuple):
    """Rows of a relation whose ends are of two types. where: SQL that chooses them. turned: from target to source."""

    source: str
    target: str
    where: str
    turned: bool


def pieces_of(relation: RelationConfig) -> list[Piece]:
    """All that a relation may have; one where nothing of it is the same as something else."""
    kinds = relation.source, relation.target
    if relation.same_as is None:
        return [Piece(*kinds, "true", False)]
    found = []
    may_link = [(False,) if kind in ("user", "item") else (True, False) for kind in kinds]
    for linked in itertools.product(*may_link):
        own = [relation.same_as.type if link else kind for link, kind in zip(linked, kinds, strict=True)]
        terms = [
            f"{end}_n is {'not ' if link else ''}null"
            for end, link, few in zip(IDS, linked, may_link, strict=True)
            if len(few) > 1
        ]
        turned = linked == (False, True) and kinds[0] == kinds[1]
        source, target = reversed(own) if turned else own
        found.append(Piece(source, target, " and ".join(terms) or "true", turned))
    return found


def _write_pieces(
    engine: Engine, name: str, config: DataConfig, table: Table, ends: Path, vocabularies: Mapping[str, Vocabulary],
    found: Related,
) -> None:  # fmt: skip
    """The edges between each pair of types, sorted, one of each pair and category."""
    relation = config.relations[name]
    categories = _categories(engine, name, table, ends)
    together: dict[tuple[str, str], list[Piece]] = {}
    for piece in pieces_of(relation):
        together.setdefault((piece.source, piece.target), []).append(piece)
    for (source, target), pieces in together.items():
        selects = [_select(engine, name, table, ends, vocabularies, piece, len(categories)) for piece in pieces]
        rows = Rows(
            " union all ".join(selects), table.labels, table.unit is not None, (CATEGORY,) if categories else ()
        )
        own_name = name if relation.same_as is None else f"{name}-{source}-{target}"
        file, repeats, _ = distinct_pairs(
            engine, f"relation-{own_name}", rows, vocabularies[source].count, config.repeated, table.source.name
        )
        if file.count:
            turned = tuple(TURNED + one for one in categories) if any(piece.turned for piece in pieces) else ()
            found.edges[own_name] = Edges(source, target, (*categories, *turned), file, repeats)


def _select(
    engine: Engine, name: str, table: Table, ends: Path, vocabularies: Mapping[str, Vocabulary], piece: Piece,
    num_categories: int,
) -> str:  # fmt: skip
    joins, numbers = [], []
    for end, kind in zip(reversed(IDS) if piece.turned else IDS, (piece.source, piece.target), strict=True):
        if kind in ("user", "item"):
            numbers.append(f"r.{end}_n")
        else:
            key = vocabularies[kind].key(f"r.{end}", table.id_types[end])
            joins.append(f"join {vocabularies[kind].numbers()} {end} on {end}.key = {key}")
            numbers.append(f"{end}.n")
    given = "".join(f", r.{named(label)}::double as {named(label)}" for label in table.labels)
    given += ", r.time" if table.unit is not None else ""
    if num_categories:
        shift = num_categories if piece.turned else 0
        given += f", (c.file_row_number + {shift})::usmallint as {CATEGORY}"
        joins.append(f"join {parquet(_categories_file(engine, name))} c on c.key = r.{CATEGORY}")
    return (
        f"select {numbers[0]} as source, {numbers[1]} as target, r.{ROW}{given} from {parquet(ends)} r "
        f"{' '.join(joins)} where {piece.where}"
    )


def _categories_file(engine: Engine, name: str) -> Path:
    return engine.work / f"categories-{name}.parquet"


def _categories(engine: Engine, name: str, table: Table, ends: Path) -> tuple[str, ...]:
    """Their names, sorted; the number of one is its row in the file. Raises `DataError` where there are too many."""
    if not table.has_category:
        return ()
    path = engine.write(
        _categories_file(engine, name).stem, f"select distinct {CATEGORY} as key from {parquet(ends)} order by key"
    )
    names = tuple(engine.frame(f"select key from {parquet(path)} order by file_row_number")["key"])
    if len(names) > MOST_CATEGORIES:
        raise DataError(
            f"{table.source.name}: the categories of relation {name} have {len(names):,} values, for example "
            f"{', '.join(map(shown, names[:NUM_EXAMPLES]))}; expected at most {MOST_CATEGORIES:,}; name another column "
            f"with data.relations.{name}.columns.category, or make it a node type"
        )
    return names
