"""Tables beside the interactions: input features and titles, keyed by external ID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import DataConfig, FeatureConfig
from dist_gat.data.bad_rows import BadRows, malformed_rows, refuse_bad_rows
from dist_gat.data.engine import Engine, Stream, named, parquet
from dist_gat.data.source import Source, open_beside
from dist_gat.data.table import REMEDY, quoted_lines, values_at
from dist_gat.data.text_table import NUM_EXAMPLES, ROW, shown
from dist_gat.data.values import MAX_ID_BYTES, id_sql, number_sql
from dist_gat.data.vocabulary import EXACT, Vocabulary


@dataclass(frozen=True)
class NodeTable:
    """values: float32 [nodes, columns], 0 where a node has no row; standardised, if that was asked for."""

    values: np.ndarray
    columns: list[str]
    mean: list[float]  # what was subtracted, by column
    deviation: list[float]  # what was divided by
    num_found: int  # nodes that have a row
    num_bad: int
    warnings: list[str]


def read_features(
    engine: Engine, config: DataConfig, feature: FeatureConfig, setting: str, vocabulary: Vocabulary, index: np.ndarray,
    in_training: np.ndarray, tables: Mapping[str, Any] | None = None,
) -> NodeTable:  # fmt: skip
    """Numeric columns by node. IDs that the table lacks get zeros; IDs that the vocabulary lacks are ignored.

    setting: the key of `feature`, for messages. index: int64, from the vocabulary to nodes. in_training: bool [nodes];
    means and deviations are those of these nodes that have a row. Raises `DataError`, for example for a value that is
    not a finite number.
    """
    found = _read(engine, config, feature, setting, vocabulary, index, tables, are_numbers=True)
    rows = found.frame.select(named_columns(feature)).to_numpy().astype(np.float64).reshape(-1, len(feature.columns))
    size = len(in_training)
    has_row = np.zeros(size, bool)
    has_row[found.nodes] = True
    values = np.zeros((size, len(feature.columns)))
    values[found.nodes] = rows
    mean, deviation = np.zeros(len(feature.columns)), np.ones(len(feature.columns))
    measured = values[has_row & in_training]
    if feature.standardize and len(measured):
        mean, deviation = measured.mean(axis=0), measured.std(axis=0)
        deviation[deviation == 0] = 1.0
        values[has_row] = (values[has_row] - mean) / deviation
    return NodeTable(
        values.astype(np.float32), list(feature.columns), mean.tolist(), deviation.tolist(), int(has_row.sum()),
        found.num_bad, found.warnings,
    )  # fmt: skip


def read_titles(
    engine: Engine, config: DataConfig, feature: FeatureConfig, setting: str, vocabulary: Vocabulary, index: np.ndarray,
    tables: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, int, list[str]]:  # fmt: skip
    """One text column by node, as str or None; the bad rows dropped; warnings."""
    if len(feature.columns) != 1:
        raise DataError(f"{setting}.columns={feature.columns}: expected one column, the title; remove the others")
    found = _read(engine, config, feature, setting, vocabulary, index, tables, are_numbers=False)
    titles = np.full(int(index.max(initial=-1)) + 1, None, dtype=object)
    titles[found.nodes] = [title or None for title in found.frame["value 0"]]
    return titles, found.num_bad, found.warnings


@dataclass(frozen=True)
class _Found:
    frame: pl.DataFrame  # of the rows whose ID is known: columns `value 0`, ...
    nodes: np.ndarray  # int64 [rows of the frame]
    num_bad: int
    warnings: list[str]


def named_columns(feature: FeatureConfig) -> list[str]:
    return [f"value {number}" for number in range(len(feature.columns))]


def _read(
    engine: Engine, config: DataConfig, feature: FeatureConfig, setting: str, vocabulary: Vocabulary, index: np.ndarray,
    tables: Mapping[str, Any] | None, are_numbers: bool,
) -> _Found:  # fmt: skip
    source = open_beside(feature.path, config, f"{setting}.path", tables)
    source.check_column(feature.id_column, f"{setting}.id_column")
    for column in feature.columns:
        source.check_column(column, f"{setting}.columns")
    names = named_columns(feature)
    columns = {"id": feature.id_column, **dict(zip(names, feature.columns, strict=True))}
    schema = source.schema(columns)
    key = id_sql("id", schema.field("id").type, source.is_text)
    if key is None:
        raise DataError(
            f"{source.name}: column '{feature.id_column}' has type {schema.field('id').type}; write the IDs as text"
        )
    values = [
        f"{number_sql(name, schema.field(name).type) if are_numbers else named(name) + '::varchar'} as {named(name)}"
        for name in names
    ]
    path = engine.write(
        setting,
        f"select {key} as id, {ROW}, {', '.join(values)} from source",
        Stream(schema, source.batches(columns)),
        f"reading {source.name}",
    )
    num_bad, num_rows = _check(engine, path, source, feature, config, names if are_numbers else [], setting)
    good = " and ".join(f"{named(name)} is not null" for name in (["id", *names] if are_numbers else ["id"]))
    text = _text_key(engine, path)
    usable = (
        f"(select *, {text} as text from {parquet(path)} where {good} "
        f"qualify row_number() over (partition by id order by {ROW}) = 1)"
    )
    frame = engine.frame(
        f"select v.file_row_number as n, r.* exclude (id, file_row_number) from {usable} r "
        f"join {parquet(vocabulary.path)} v on v.id::varchar = r.text "
        f"qualify row_number() over (partition by n order by {ROW}) = 1 order by n"
    )
    nodes = index[frame["n"].to_numpy().astype(np.int64)]
    frame, nodes = frame.filter(nodes >= 0), nodes[nodes >= 0]
    size = int(index.max(initial=-1)) + 1
    kind, warnings = setting.removeprefix("data.").partition("_")[0], quoted_lines(source)
    if len(frame) < size or len(frame) < num_rows - num_bad:
        unmet = engine.frame(
            f"select text as id from {usable} where text not in (select id::varchar from {parquet(vocabulary.path)}) "
            f"order by {ROW} limit {NUM_EXAMPLES}"
        )["id"]
        examples = (
            f"; the table has IDs that no interaction has, for example {', '.join(map(shown, unmet))}"
            if len(unmet)
            else ""
        )
        known = engine.frame(
            f"select id::varchar as id from {parquet(vocabulary.path)} order by file_row_number limit 3"
        )["id"]
        if not len(frame):
            raise DataError(
                f"{source.name}: column '{feature.id_column}' has no ID of the interactions; it has "
                f"{', '.join(map(shown, unmet))}, they have {', '.join(map(shown, known))}; name the right column, "
                "or write the same IDs in both"
            )
        if len(frame) < size:
            warnings.append(f"{size - len(frame):,} of {size:,} {plural(kind)} have no row in {source.name}{examples}")
    return _Found(frame, nodes, num_bad, warnings)


def _text_key(engine: Engine, path: Any) -> str:
    """SQL for the text of an ID, that of a whole number without its point."""
    kind = engine.row(f"select any_value(typeof(id)) as kind from {parquet(path)}")["kind"]
    if kind == "DOUBLE":
        return f"case when id = floor(id) and abs(id) < {EXACT} then id::bigint::varchar else id::varchar end"
    return "id::varchar"


def _check(
    engine: Engine,
    path: Any,
    source: Source,
    feature: FeatureConfig,
    config: DataConfig,
    numbers: Sequence[str],
    setting: str,
) -> tuple[int, int]:
    """The number of bad rows, which are an error unless they may be skipped, and of all."""
    malformed = malformed_rows(source)
    num_malformed = malformed.count
    conditions = {name: f"{named(name)} is null" for name in numbers}
    number = f"row_number() over (partition by id order by {ROW})"
    again = f"select *, {number} > 1 and id is not null as again from {parquet(path)}"
    conditions |= {"id": "id is null", "again": "again"}
    counts = ", ".join(
        f"count(*) filter (where {condition}) as {named(name)}" for name, condition in conditions.items()
    )
    stats = engine.row(
        f"select {counts}, count(*) as every, count(*) filter (where {' or '.join(conditions.values())}) as bad from "
        f"({again})"
    )
    if not stats["every"] + num_malformed:
        raise DataError(
            f"{source.name}: the table of {setting} has no rows; expected one for each ID, or unset {setting}"
        )
    if stats["bad"] + num_malformed and not config.skip_bad_rows:
        bad = [malformed]
        key = feature.id_column
        words = {name: (column, f"{column} is not a finite number", "a number in every row")
                 for name, column in zip(named_columns(feature), feature.columns, strict=True)}  # fmt: skip
        words |= {"id": (key, f"{key} is empty", f"an ID of 1 to {MAX_ID_BYTES} bytes in every row"),
                  "again": (key, f"{key} again", "each ID once")}  # fmt: skip
        for name, condition in conditions.items():
            if stats[name]:
                keys = engine.frame(
                    f"select {ROW} from ({again}) where {condition} order by {ROW} limit {NUM_EXAMPLES}"
                )
                column, found, expected = words[name]
                values = values_at(source, column, keys[ROW].to_list())
                bad.append(BadRows(found, expected, stats[name], [(row, repr(value)) for row, value in values]))
        refuse_bad_rows(source, stats["bad"] + num_malformed, bad, REMEDY)
    return stats["bad"] + num_malformed, stats["every"] + num_malformed
