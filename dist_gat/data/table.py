"""`read_table`: a table of interactions or other edges, read and checked, as a parquet file of usable columns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import AUTO, ColumnsConfig, DataConfig, RelationColumnsConfig
from dist_gat.data.bad_rows import BadRows, malformed_rows, refuse_bad_rows
from dist_gat.data.engine import REPORT_S, Engine, Stream, named, parquet, quoted
from dist_gat.data.source import Source
from dist_gat.data.text_table import NUM_EXAMPLES, ROW, Malformed
from dist_gat.data.values import MAX_ID_BYTES, UNITS, id_sql, number_sql, time_sql, unit_of

ALIASES = {"weight": ("weight", "rating"), "datetime": ("datetime", "timestamp")}
IDS = ("source_id", "target_id")
CATEGORY = "category"
WHERE = "where "
NOWHERE: Mapping[str, str] = {}
REMEDY = "correct the file, or drop and count such rows with data.skip_bad_rows=true (--skip-bad-rows)"


@dataclass(frozen=True)
class Table:
    """Usable and bad rows of a table: columns source_id, target_id, row, labels, category and time where there are any.

    A row with a null is bad; whoever reads the table leaves it out.
    """

    paths: list[Path]
    source: Source
    labels: dict[str, str]  # name -> column of the file; one may be `weight`
    has_category: bool
    id_types: dict[str, str]  # of source_id and target_id: VARCHAR, BIGINT, UBIGINT or DOUBLE
    unit: str | None  # of the times, "" where they are dates; None: there are none
    num_rows: int  # usable
    num_bad: int
    num_missing: int  # rows whose user or item is one of `data.missing`
    warnings: list[str]

    @property
    def beside_ids(self) -> set[str]:
        """Standard names of the columns that it has beside users and items."""
        return {*self.labels, *(["datetime"] if self.unit is not None else [])}

    @property
    def rows(self) -> str:
        """SQL for the usable rows, with `time` in microseconds."""
        more = [CATEGORY] if self.has_category else []
        time, good = "", [f"{name} is not null" for name in (*IDS, *map(named, [*more, *self.labels]))]
        if self.unit is not None:
            moment = f"coalesce(moment, round(number * {UNITS[self.unit or 's']})::bigint)"
            time, good = f", {moment} as time", [*good, "(moment is not null or number is not null)"]
        labels = "".join(f", {named(label)}" for label in [*more, *self.labels])
        where = f" where {' and '.join(good)}" if self.num_bad else ""
        return f"(select {', '.join(IDS)}, {ROW}{labels}{time} from {parquet(*self.paths)}{where})"


def read_table(
    engine: Engine, key: str, source: Source, config: DataConfig, columns: ColumnsConfig | RelationColumnsConfig,
    ids: tuple[str, str] | None = None, where: Mapping[str, str] = NOWHERE, min_weight: float | None = None,
    setting: str = "data.columns",
) -> Table:  # fmt: skip
    """Read and check one table. key: names its file in the engine's folder.

    columns: their names, those of sources and targets in `ids`, by default of users and items. setting: the key of
    `columns`, for messages.
    where: rows with these values alone are read, by the file's own columns, as text. Rows below `min_weight` are left
    out and not counted. Raises `DataError` with the file, the first bad rows, what was expected and what to do.
    """
    if (known := engine.recall(key)) is not None:
        return Table([engine.work / name for name in known.pop("paths")], source, **known)
    found = find_columns(source, columns, ids, setting)
    labels = {name: column for name, column in found.items() if name not in (*IDS, CATEGORY, "datetime")}
    if min_weight is not None and "weight" not in labels:
        raise DataError(
            f"{source.name}: data.min_weight needs a weight or rating column; name it in data.columns.weight"
        )
    for name in where:
        source.check_column(name, "where")
    wanted = found | {WHERE + name: name for name in where}
    schema = source.schema(wanted)
    kinds = {name: schema.field(name).type for name in wanted}
    selected = [ROW]
    for name in IDS:
        sql = id_sql(name, kinds[name], source.is_text)
        if sql is None:
            raise DataError(
                f"{source.name}: column '{found[name]}' has type {kinds[name]}; expected integers, text or floats; "
                "write the IDs as text"
            )
        selected.append(f"{sql} as {name}")
    selected += [f"{number_sql(name, kinds[name])} as {named(name)}" for name in labels]
    if CATEGORY in found:
        selected.append(f"nullif(trim({CATEGORY}::varchar), '') as {CATEGORY}")
    if "datetime" in found:
        moment, number = time_sql("datetime", kinds["datetime"])
        selected += [f"{moment} as moment", f"{number} as number"]
    chosen = [f"{named(WHERE + name)}::varchar = {quoted(value)}" for name, value in where.items()]
    chosen += [f"coalesce({sql}::varchar, '') not in ({', '.join(map(quoted, config.missing))})"
               for name in IDS if config.missing and (sql := id_sql(name, kinds[name], source.is_text))]  # fmt: skip
    sql = f"select {', '.join(selected)} from source" + (f" where {' and '.join(chosen)}" if chosen else "")
    if min_weight is not None:
        sql = f"select * from ({sql}) where weight is null or weight >= {min_weight!r}"
    what = (key, sql, schema, source, wanted, config.missing)
    if engine.tasks is None or len(source.files) == 1:
        pieces = [read_piece(engine, None, *what)]
    else:
        engine.progress(f"reading {source.name}, {engine.tasks.num_tasks} files at a time")
        share = engine.memory_bytes // engine.tasks.num_tasks
        own = [(engine.work, share, [number], *what) for number in range(len(source.files))]
        pieces = engine.tasks(read_elsewhere, own)
    for piece in pieces:
        source.malformed.update(piece.malformed)
    paths = [engine.work / piece.name for piece in pieces]
    counted = sum(piece.num_rows for piece in pieces), sum(piece.num_missing for piece in pieces)
    table = _checked(engine, paths, source, found, labels, config, where, *counted, min_weight)
    plain = {f.name: getattr(table, f.name) for f in fields(table) if f.name not in ("paths", "source")}
    engine.remember(key, {**plain, "paths": [path.name for path in paths]})
    return table


@dataclass(frozen=True)
class Piece:
    """What was read of some files of a table: the file with it, in the engine's folder, and counts."""

    name: str
    num_rows: int
    num_missing: int
    malformed: dict[int, Malformed]


def read_piece(
    engine: Engine, numbers: list[int] | None, key: str, sql: str, schema: pa.Schema, source: Source,
    columns: Mapping[str, str], missing: list[str],
) -> Piece:  # fmt: skip
    """Read the files with these numbers, or all."""
    read = _Reading(engine, source, columns, missing, numbers)
    name = key if numbers is None else f"{key}-{numbers[0]}"
    path = engine.write(name, sql, Stream(schema, read.batches()), what=f"reading {source.name}")
    return Piece(path.name, read.num_rows, read.num_missing, dict(source.malformed))


def read_elsewhere(work: Path, memory_bytes: int, *what: Any) -> Piece:
    """`read_piece` as a task."""
    with Engine(work, memory_bytes, threads=1) as engine:
        return read_piece(engine, *what)


class _Reading:
    """The batches of a source on their way to the engine: counted, and their progress told."""

    def __init__(
        self, engine: Engine, source: Source, columns: Mapping[str, str], missing: list[str], numbers: list[int] | None
    ) -> None:
        self.engine, self.source, self.columns, self.missing, self.numbers = engine, source, columns, missing, numbers
        self.num_rows = self.num_missing = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        started = told = time.monotonic()
        for batch in self.source.batches(self.columns, self.numbers):
            self.num_rows += batch.num_rows
            if time.monotonic() - told > REPORT_S:
                told = time.monotonic()
                rate, share = self.num_rows / (told - started), self.source.share
                left = f", {(told - started) * (1 - share) / share:,.0f} s left" if share else ""
                self.engine.progress(
                    f"reading {self.source.name}: {self.num_rows:,} rows, {rate:,.0f} a second, {share:.0%}{left}"
                )
            if self.missing:
                stand_for_none = pa.array(self.missing, pa.large_string())
                gone = [pc.is_in(pc.utf8_trim_whitespace(batch.column(name).cast(pa.large_string())), stand_for_none)
                        for name in IDS]  # fmt: skip
                self.num_missing += pc.or_(*gone).true_count
            yield batch


def _checked(
    engine: Engine, paths: list[Path], source: Source, found: dict[str, str], labels: dict[str, str],
    config: DataConfig, where: Mapping[str, str], num_read: int, num_missing: int, min_weight: float | None,
) -> Table:  # fmt: skip
    has_time = "datetime" in found
    more = [CATEGORY] if CATEGORY in found else []
    nulls = {name: f"{named(name)} is null" for name in (*IDS, *more, *labels)}
    if has_time:
        nulls["datetime"] = "(moment is null and number is null)"
    counts = [f"count(*) filter (where {null}) as {named(name)}" for name, null in nulls.items()]
    counts += [f"count(*) filter (where {' or '.join(nulls.values())}) as bad", "count(*) as every"]
    for name in UNITS if has_time else ():
        counts.append(f"count(*) filter (where number <> 0 and {unit_of('number')} = {quoted(name)}) as {name}")
    counts += [f"any_value(typeof({name})) as type_{name}" for name in IDS]
    stats = engine.row(f"select {', '.join(counts)} from {parquet(*paths)}")
    malformed = malformed_rows(source)
    num_malformed = malformed.count
    every, num_bad = stats["every"], stats["bad"]
    if not every + num_malformed:
        if where and num_read:
            raise DataError(f"{source.name}: no row has {dict(where)}; correct `where`, or leave the relation out")
        if min_weight is None and not num_missing:
            raise DataError(f"{source.name}: the file has no interactions; expected a row for each")
    if not config.skip_bad_rows and num_bad + num_malformed:
        bad = [malformed]
        for name, null in nulls.items():
            if stats[name]:
                bad.append(_fault(engine, paths, source, name, found[name], null, stats[name]))
        left_out = [name for name in ("weight", "datetime") if name in nulls and stats[name]]
        advice = "".join(f", or leave the column out with data.columns.{name}=null" for name in left_out)
        refuse_bad_rows(source, num_bad + num_malformed, bad, REMEDY + advice)
    if every == num_bad:
        limit = "" if min_weight is None else f" or their weight is below data.min_weight={min_weight}"
        count = num_read + num_malformed or every
        raise DataError(f"{source.name}: none of the {count} rows is left: they are bad{limit}; correct the file")
    unit: str | None = None
    if has_time:
        unit = config.time_unit if config.time_unit != AUTO else _unit(engine, paths, source, stats)
    return Table(paths, source, labels, bool(more), {name: stats[f"type_{name}"] for name in IDS}, unit,
                 every - num_bad, num_bad + num_malformed, num_missing, quoted_lines(source))  # fmt: skip


def quoted_lines(source: Source) -> list[str]:
    """A warning of each file that has lines inside quoted fields, which may be rows that a stray quote hides."""
    return [
        f"{source.files[number].name}: {found.num_quoted:,} lines stand inside quoted fields and are no rows of their "
        "own; so it should be where a text has several lines; if quotes have no meaning in this file and hide rows, "
        "set data.quote=none"
        for number, found in source.malformed.items()
        if found.num_quoted
    ]


def _unit(engine: Engine, paths: list[Path], source: Source, stats: Mapping[str, int]) -> str:
    """The unit of all times that are numbers. Raises `DataError` where they are of several."""
    units = [unit for unit in UNITS if stats[unit]]
    if len(units) < 2:
        return units[0] if units else ""
    words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
    seen = []
    for unit in units:
        row = engine.row(
            f"select {ROW}, number from {parquet(*paths)} where number <> 0 and {unit_of('number')} = {quoted(unit)} "
            f"order by {ROW} limit 1"
        )
        seen.append(f"{stats[unit]} look like {words[unit]} (row {source.located(row[ROW])[1]}: {row['number']:.15g})")
    raise DataError(
        f"{source.name}: times of several units: {', '.join(seen)}; expected one; correct the file, say which it is "
        "with data.time_unit (s, ms or us), or leave the column out with data.columns.datetime=null"
    )


def _fault(engine: Engine, paths: list[Path], source: Source, name: str, column: str, null: str, count: int) -> BadRows:
    """The rows whose value of one column can't be used, with what the file has there."""
    keys = engine.frame(f"select {ROW} from {parquet(*paths)} where {null} order by {ROW} limit {NUM_EXAMPLES}")[ROW]
    examples = values_at(source, column, keys.to_list())
    if name in IDS:
        has_text = any(isinstance(value, str) and value.strip() for _, value in examples)
        found = f"{column} is empty, too long or has a NUL byte" if has_text else f"{column} is empty"
        expected = f"an ID of 1 to {MAX_ID_BYTES} bytes in every row"
    elif name == CATEGORY:
        found, expected = f"{column} is empty", "the category of every edge"
    elif name == "datetime":
        found, expected = "datetime can't be read", "epoch seconds or ISO 8601"
    else:
        found, expected = f"{name} is not a finite number", "a number"
    return BadRows(found, expected, count, [(key, repr(value)) for key, value in examples])


def values_at(source: Source, column: str, keys: list[int]) -> list[tuple[int, object]]:
    """What a column has in some rows, given in their order: key and value."""
    found: list[tuple[int, object]] = []
    for batch in source.batches({"value": column}):
        rows = batch.column(ROW).to_numpy()
        at = np.flatnonzero(np.isin(rows, keys))
        found += [(int(rows[i]), batch.column("value")[int(i)].as_py()) for i in at]
        if len(found) >= len(keys):
            break
    return found


def find_columns(
    source: Source, mapping: ColumnsConfig | RelationColumnsConfig, ids: tuple[str, str] | None = None,
    setting: str = "data.columns",
) -> dict[str, str]:  # fmt: skip
    """Standard name -> spelling in the file, for the columns that are there and wanted. Raises `DataError`."""
    if ids is None:
        assert isinstance(mapping, ColumnsConfig), "a relation names its ends"
        ids = mapping.ids
    keys = ("user_id", "item_id") if isinstance(mapping, ColumnsConfig) else ("source", "target")
    columns = dict(zip(IDS, ids, strict=True))
    for column, key in zip(ids, keys, strict=True):
        source.check_column(column, f"{setting}.{key}")
    category = getattr(mapping, CATEGORY, None)
    if category is not None:
        columns[CATEGORY] = category
        source.check_column(category, f"{setting}.{CATEGORY}")
    for name, aliases in ALIASES.items():
        mapped = getattr(mapping, name)
        if mapped == AUTO:
            present = [alias for alias in aliases if alias in source.names and alias not in columns.values()]
            columns |= {name: present[0]} if present else {}
        elif mapped is not None:
            columns[name] = mapped
        if name in columns:
            source.check_column(columns[name], f"{setting}.{name}")
    for name, column in mapping.labels.items():
        source.check_column(column, f"{setting}.labels.{name}")
        columns[name] = column
    return columns
