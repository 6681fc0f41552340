"""Tables beside the interactions, keyed by external ID: columns of nodes, and titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.node_sections import FeatureConfig
from dist_gat.data.bad_rows import BadRows, malformed_rows, refuse_bad_rows
from dist_gat.data.engine import Engine, Stream, named, parquet, quoted
from dist_gat.data.source import Source, open_beside
from dist_gat.data.table import REMEDY, quoted_lines, values_at
from dist_gat.data.text_table import NUM_EXAMPLES, ROW, shown
from dist_gat.data.values import BLANKS, MAX_ID_BYTES, id_sql, is_number, is_text, number_sql
from dist_gat.data.vocabulary import EXACT, Vocabulary

# what a value becomes: float64, text, a list of texts, a list of float32, the number of its row from 0
ValueKind = Literal["number", "title", "text", "category", "categories", "vector", "position"]
MOST_TEXT = 1 << 20  # bytes of a text with categories


class Value(NamedTuple):
    """A column to read. setting: the key that names it, for messages. separator: of categories in a text.
    missing: texts that stand for no value."""

    column: str
    kind: ValueKind
    setting: str
    separator: str = " "
    missing: Sequence[str] = ()


class SideTable(NamedTuple):
    """A table of nodes of one type. setting: its key, for messages; id_setting: that of its ID column."""

    node_type: str
    files: str | list[str]
    id_column: str
    values: Sequence[Value]
    setting: str
    id_setting: str


@dataclass(frozen=True)
class SideRows:
    """frame: of the rows whose ID is known, `value 0`, `value 1` and so on, null where there is none.

    nodes: int64, the node of each row. num_rows: of the table.
    """

    frame: pl.DataFrame
    nodes: np.ndarray
    num_rows: int
    num_bad: int
    warnings: list[str]


def read_titles(
    engine: Engine, config: DataConfig, feature: FeatureConfig, setting: str, vocabulary: Vocabulary, index: np.ndarray,
    tables: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, int, list[str]]:  # fmt: skip
    """One text column by node, as str or None; the bad rows dropped; warnings."""
    if len(feature.columns) != 1:
        raise DataError(f"{setting}.columns={feature.columns}: expected one column, the title; remove the others")
    values = [Value(feature.columns[0], "title", f"{setting}.columns")]
    table = SideTable("item", feature.path, feature.id_column, values, f"{setting}.path", f"{setting}.id_column")
    found = read_side_table(engine, config, table, vocabulary, index, tables)
    titles = np.full(int(index.max(initial=-1)) + 1, None, dtype=object)
    titles[found.nodes] = [title or None for title in found.frame["value 0"]]
    return titles, found.num_bad, found.warnings


def read_side_table(
    engine: Engine, config: DataConfig, table: SideTable, vocabulary: Vocabulary, index: np.ndarray,
    tables: Mapping[str, Any] | None,
) -> SideRows:  # fmt: skip
    """Read and check a table. IDs that the vocabulary lacks are ignored. index: int64, from the vocabulary to nodes.

    Raises `DataError`, for example for a value that is not of its kind.
    """
    source = open_beside(table.files, config, table.setting, tables)
    source.check_column(table.id_column, table.id_setting)
    names = [f"value {number}" for number in range(len(table.values))]
    columns = {"id": table.id_column}
    for name, value in zip(names, table.values, strict=True):
        if value.kind != "position":
            source.check_column(value.column, value.setting)
            columns[name] = value.column
    schema = source.schema(columns)
    key = id_sql("id", schema.field("id").type, source.is_text)
    if key is None:
        raise DataError(
            f"{source.name}: column '{table.id_column}' has type {schema.field('id').type}; write the IDs as text"
        )
    selected = []
    for name, value in zip(names, table.values, strict=True):
        found = _value_sql(name, value, schema, source)
        selected.append(f"{found.sql} as {named(name)}, ({found.sql} is null and not {found.blank}) as {_bad(name)}")
    path = engine.write(
        table.setting,
        f"select {key} as id, {ROW}, {', '.join(selected)} from source",
        Stream(schema, source.batches(columns)),
        f"reading {source.name}",
    )
    if all(value.kind == "categories" for value in table.values):
        path = _joined(engine, path, table, names)
    num_bad, num_rows = _check(engine, path, source, table, config)
    good = " and ".join(["id is not null", *(f"not {condition}" for condition in _conditions(engine, path, table))])
    text = _text_key(engine, path)
    usable = (
        f"(select *, {text} as text from {parquet(path)} where {good} "
        f"qualify row_number() over (partition by id order by {ROW}) = 1)"
    )
    frame = engine.frame(
        f"select v.file_row_number as n, r.* exclude (id, file_row_number) from {usable} r "
        f"join {parquet(vocabulary.path)} v on v.key::varchar = r.text "
        f"qualify row_number() over (partition by n order by {ROW}) = 1 order by n"
    )
    nodes = index[frame["n"].to_numpy().astype(np.int64)]
    frame, nodes = frame.filter(nodes >= 0), nodes[nodes >= 0]
    warnings = [*quoted_lines(source), *_unmet(engine, source, table, vocabulary, usable, len(frame), index, num_rows)]
    return SideRows(frame.select(names), nodes, num_rows, num_bad, warnings)


def _joined(engine: Engine, path: Path, table: SideTable, names: Sequence[str]) -> Path:
    """The lists of each ID in one row, where the table has a row for each of a node's categories."""
    lists = [
        f"flatten(list({named(name)} order by {ROW}) filter (where {named(name)} is not null)) as {named(name)}, "
        f"bool_or({_bad(name)}) as {_bad(name)}"
        for name in names
    ]
    # rows without an ID stay apart, to be counted
    return engine.write(
        f"{table.setting}-joined",
        f"select id, min({ROW}) as {ROW}, {', '.join(lists)} from {parquet(path)} "
        f"group by id, case when id is null then {ROW} end order by min({ROW})",
    )


def _unmet(
    engine: Engine, source: Source, table: SideTable, vocabulary: Vocabulary, usable: str, num_found: int,
    index: np.ndarray, num_rows: int,
) -> list[str]:  # fmt: skip
    """A warning of nodes without a row, if there are any. Raises `DataError` where all are."""
    size = int(index.max(initial=-1)) + 1
    if num_found == size:
        return []
    unmet = engine.frame(
        f"select text as id from {usable} where text not in (select key::varchar from {parquet(vocabulary.path)}) "
        f"order by {ROW} limit {NUM_EXAMPLES}"
    )["id"]
    if not num_found:
        known = engine.frame(
            f"select key::varchar as id from {parquet(vocabulary.path)} order by file_row_number limit 3"
        )["id"]
        raise DataError(
            f"{source.name}: column '{table.id_column}' has no ID of the interactions; it has "
            f"{', '.join(map(shown, unmet))}, they have {', '.join(map(shown, known))}; name the right column, "
            "or write the same IDs in both"
        )
    ids = f"; the table has IDs that no interaction has, for example {', '.join(map(shown, unmet))}"
    return [
        f"{size - num_found:,} of {size:,} {plural(table.node_type)} have no row in {source.name}"
        + (ids if len(unmet) else "")
    ]


class _Sql(NamedTuple):
    """sql: the value, null where there is none or it is bad. blank: whether there is none."""

    sql: str
    blank: str


def _value_sql(name: str, value: Value, schema: pa.Schema, source: Source) -> _Sql:
    column = named(name)
    if value.kind == "position":
        return _Sql(f"row_number() over (order by {ROW}) - 1", "false")
    if value.kind == "title":
        return _Sql(f"{column}::varchar", "true")
    kind = schema.field(name).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    trimmed = f"trim({column}, {BLANKS})"
    nothing = ", ".join(map(quoted, ["", *value.missing]))
    blank = f"({column} is null or {trimmed} in ({nothing}))" if is_text(kind) else f"({column} is null)"
    if value.kind == "text" and is_text(kind):
        return _Sql(f"case when not {blank} then {column} end", blank)
    if value.kind == "number" and not is_list:
        return _Sql(f"case when not {blank} then {number_sql(name, kind)} end", blank)
    if value.kind == "category" and not is_list:
        return _Sql(f"case when not {blank} then {_category_sql(column, kind)} end", blank)
    if value.kind == "categories" and is_list:
        items = f"list_filter({column}, lambda x: x is not null)"
        of_item = _category_sql("x", kind.value_type)
        texts = f"list_transform({items}, lambda x: {of_item})"
        return _Sql(f"case when not list_contains(list_transform({texts}, lambda x: x is null), true) then {texts} end",
                    blank)  # fmt: skip
    if value.kind == "categories":
        if not is_text(kind):
            return _Sql(f"case when {_category_sql(column, kind)} is not null then [{_category_sql(column, kind)}] end",
                        blank)  # fmt: skip
        parts = f"list_transform(string_split({trimmed}, {quoted(value.separator)}), lambda x: trim(x, {BLANKS}))"
        filled = f"list_filter({parts}, lambda x: x <> '')"
        longest = f"coalesce(list_max(list_transform({filled}, lambda x: strlen(x))), 0) <= {MAX_ID_BYTES}"
        return _Sql(f"case when not {blank} and strlen({column}) <= {MOST_TEXT} and {longest} then {filled} end", blank)
    if value.kind == "vector" and is_list and is_number(kind.value_type):
        floats = f"try_cast({column} as float[])"
        finite = f"list_bool_and(list_transform({floats}, lambda x: coalesce(isfinite(x), false)))"
        return _Sql(f"case when {finite} and len({floats}) > 0 then {floats} end", blank)
    expected = {
        "number": "numbers", "text": "text", "category": "text or numbers; of lists, the kind is categories",
        "categories": "text, or lists of text or of whole numbers",
        "vector": "lists of numbers; or name an .npy file in `table`",
    }[value.kind]  # fmt: skip
    raise DataError(
        f"{source.name}: column '{value.column}' has type {kind}; expected {expected}; correct {value.setting}"
    )


def _category_sql(column: str, kind: pa.DataType) -> str:
    """A category as text, that of a whole number without its point; null where it is none."""
    if is_text(kind):
        return (
            f"case when strlen({column}) <= {MAX_ID_BYTES} and trim({column}, {BLANKS}) <> '' "
            f"then trim({column}, {BLANKS}) end"
        )
    if pa.types.is_floating(kind):
        whole = f"{column} = floor({column}) and abs({column}) < {EXACT}"
        text = f"case when {whole} then {column}::bigint::varchar else {column}::varchar end"
        return f"case when isfinite({column}) then {text} end"
    return f"{column}::varchar"


def _text_key(engine: Engine, path: Path) -> str:
    """SQL for the text of an ID, that of a whole number without its point."""
    kind = engine.row(f"select any_value(typeof(id)) as kind from {parquet(path)}")["kind"]
    if kind == "DOUBLE":
        return f"case when id = floor(id) and abs(id) < {EXACT} then id::bigint::varchar else id::varchar end"
    return "id::varchar"


def _bad(name: str) -> str:
    return named(f"bad {name}")


def _length(engine: Engine, path: Path, name: str) -> int:
    """Of the first vector."""
    return int(
        engine.row(
            f"select coalesce(first(len({named(name)}) order by {ROW}), 0) as length from {parquet(path)} "
            f"where {named(name)} is not null"
        )["length"]
    )


def _conditions(engine: Engine, path: Path, table: SideTable) -> list[str]:
    """SQL for whether a row's value can't be used, of each value."""
    found = []
    for number, value in enumerate(table.values):
        name = f"value {number}"
        found.append(_bad(name))
        if value.kind == "vector":
            other = f"coalesce(len({named(name)}) <> {_length(engine, path, name)}, false)"
            found[-1] = f"({found[-1]} or {other})"
    return found


def _check(engine: Engine, path: Path, source: Source, table: SideTable, config: DataConfig) -> tuple[int, int]:
    """The number of bad rows, which are an error unless they may be skipped, and of all."""
    malformed = malformed_rows(source)
    num_malformed = malformed.count
    key = table.id_column
    number = f"row_number() over (partition by id order by {ROW})"
    again = f"select *, {number} > 1 and id is not null as again from {parquet(path)}"
    faults = [(condition, value.column, *_words(engine, path, f"value {number}", value))
              for number, (condition, value) in enumerate(zip(_conditions(engine, path, table), table.values,
                                                              strict=True))]  # fmt: skip
    faults += [("id is null", key, f"{key} is empty", f"an ID of 1 to {MAX_ID_BYTES} bytes in every row"),
               ("again", key, f"{key} again", "each ID once")]  # fmt: skip
    counts = ", ".join(f"count(*) filter (where {fault[0]}) as fault_{n}" for n, fault in enumerate(faults))
    stats = engine.row(
        f"select {counts}, count(*) as every, count(*) filter (where {' or '.join(fault[0] for fault in faults)}) as "
        f"bad from ({again})"
    )
    if not stats["every"] + num_malformed:
        unset = table.setting.rpartition(".")[0]
        raise DataError(f"{source.name}: the table of {unset} has no rows; expected one for each ID, or unset {unset}")
    if stats["bad"] + num_malformed and not config.skip_bad_rows:
        bad = [malformed]
        for n, (condition, column, found, expected) in enumerate(faults):
            if stats[f"fault_{n}"]:
                keys = engine.frame(
                    f"select {ROW} from ({again}) where {condition} order by {ROW} limit {NUM_EXAMPLES}"
                )
                values = values_at(source, column, keys[ROW].to_list())
                bad.append(BadRows(found, expected, stats[f"fault_{n}"], [(row, repr(value)) for row, value in values]))
        refuse_bad_rows(source, stats["bad"] + num_malformed, bad, REMEDY)
    return stats["bad"] + num_malformed, stats["every"] + num_malformed


def _words(engine: Engine, path: Path, name: str, value: Value) -> tuple[str, str]:
    """What is wrong with a bad value, and what was expected."""
    column = value.column
    if value.kind == "vector":
        length = _length(engine, path, name)
        return f"{column} is no vector of {length} finite numbers", f"{length} numbers, as in the first row, or nothing"
    if value.kind == "categories":
        return f"{column} is no list of categories", f"categories of at most {MAX_ID_BYTES} bytes each, or nothing"
    if value.kind == "category":
        return f"{column} is no category", f"text of at most {MAX_ID_BYTES} bytes or a finite number, or nothing"
    return f"{column} is not a finite number", "a number, or nothing where it is not known"
