"""External IDs to indices and back. A vocabulary is a sorted file of distinct IDs; the position is the index."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import UnknownIdError
from dist_gat.base.plural import plural
from dist_gat.data.engine import Engine, parquet, quoted
from dist_gat.data.table import Table
from dist_gat.data.text_table import NUM_EXAMPLES, shown

MAX_CANDIDATES = 10_000  # IDs compared with a mistyped one
EXACT = 2**53  # whole numbers up to here are exact as DOUBLE
# what exports write where there is no ID
PLACEHOLDERS = ("null", "none", "nan", "na", "n/a", "undefined", "unknown", "\\n", "(null)", "<na>", "-")


@dataclass(frozen=True)
class Vocabulary:
    """path: columns `key`, of the tables, and `id`, the external ID: Int64, UInt64, Float64 or String. With pseudonyms
    `id` is one, and there is `sealed`, see `dist_gat.data.pseudonyms`."""

    path: Path
    count: int
    key_type: str
    whole: bool  # whether floats of the tables are whole numbers, as those of a column that had gaps

    def key(self, column: str, kind: str) -> str:
        """SQL for the key of a column of a table."""
        number = f"{column}::bigint" if kind == "DOUBLE" and self.whole else column
        return number if kind == self.key_type else f"{number}::{self.key_type}"

    def numbers(self) -> str:
        """SQL for a table of `key` and `n`, the index."""
        return f"(select key, file_row_number::uinteger as n from {parquet(self.path)})"

    def external(self) -> str:
        """SQL for a table of `id` and `n`."""
        return f"(select id, file_row_number::uinteger as n from {parquet(self.path)})"

    def ids(self, engine: Engine, column: str = "id") -> Iterator[pl.Series]:
        """The external IDs, or what else stands beside them, in the order of their indices."""
        for frame in engine.frames(f"select {column} from {parquet(self.path)} order by file_row_number"):
            yield frame[column]

    def at(self, engine: Engine, indices: Sequence[int]) -> list[object]:
        """Some external IDs."""
        if not len(indices):
            return []
        chosen = ", ".join(str(int(index)) for index in indices)
        frame = engine.frame(f"select id, file_row_number as n from {parquet(self.path)} where n in ({chosen})")
        known = dict(zip(frame["n"], frame["id"], strict=True))
        return [known[int(index)] for index in indices]


@dataclass(frozen=True)
class IdColumn:
    """One end of the rows of a table: `source_id` or `target_id`. chosen: SQL for some of the rows; None: all."""

    table: Table
    end: str
    chosen: str | None = None

    @property
    def rows(self) -> str:
        return self.chosen or self.table.rows

    @property
    def kind(self) -> str:
        return self.table.id_types[self.end]


def build_vocabulary(engine: Engine, name: str, columns: Sequence[IdColumn]) -> Vocabulary:
    """The distinct IDs of all columns, sorted, so that the order of rows doesn't matter. name: of the file.

    They get one type: Int64 for whole numbers, and for text that writes all of them as a number is printed, so not for
    007; String where tables differ otherwise.
    """
    kinds = {column.kind for column in columns}
    whole = "DOUBLE" in kinds and all(
        engine.row(
            f"select coalesce(bool_and({column.end} = floor({column.end}) and abs({column.end}) < {EXACT}), true) as "
            f"whole from {column.rows}"
        )["whole"]
        for column in columns
        if column.kind == "DOUBLE"
    )
    plain = {"BIGINT" if kind == "DOUBLE" and whole else kind for kind in kinds}
    key_type = plain.pop() if len(plain) == 1 else "VARCHAR"
    found = Vocabulary(engine.work / f"{name}.parquet", 0, key_type, whole)
    every = " union all ".join(f"select {found.key(c.end, c.kind)} as key from {c.rows}" for c in columns)
    what = f"collecting {name}"
    sql = f"select distinct key from ({every})"
    if key_type != "VARCHAR":
        engine.write(name, f"select key, key as id from ({sql}) order by key", what=what)
    else:
        distinct = engine.write(f"{name}-distinct", sql, what=what)
        is_number = "try_cast(key as bigint)::varchar is not distinct from key"
        typed = any(column.kind == "VARCHAR" and not column.table.source.is_text for column in columns)
        number = (
            not typed
            and engine.row(f"select bool_and({is_number}) as all_numbers from {parquet(distinct)}")["all_numbers"]
        )
        external = "key::bigint" if number else "key"
        engine.write(name, f"select key, {external} as id from {parquet(distinct)} order by id")
    path = found.path
    if engine.pseudonyms is not None:
        # in the order of pseudonyms, or the order of nodes would tell that of the IDs
        kind, frame = name.removesuffix("_id").removeprefix("ids-"), engine.frame(f"select * from {parquet(path)}")
        names, sealed = engine.pseudonyms.hidden(kind, frame["id"])
        path = engine.work / f"{name}-pseudonyms.parquet"
        frame.select("key").with_columns(id=names, sealed=sealed).sort("id").write_parquet(path)
    count = engine.row(f"select count(*) as count from {parquet(path)}")["count"]
    return Vocabulary(path, count, key_type, whole)


def doubtful_ids(engine: Engine, what: str, vocabulary: Vocabulary, columns: Sequence[IdColumn]) -> list[str]:
    """what: user or item. Warnings of IDs that may be none, and of numbers that are written in several ways."""
    if vocabulary.key_type != "VARCHAR":
        return []
    found = []
    marks = ", ".join(map(quoted, PLACEHOLDERS))
    suspects = engine.frame(
        f"select key from {parquet(vocabulary.path)} where lower(trim(key)) in ({marks}) order by key"
    )["key"]
    for suspect in suspects:
        every, own = 0, 0
        for column in columns:
            key = vocabulary.key(column.end, column.kind)
            counts = engine.row(
                f"select count(*) as every, count(*) filter (where {key} = {quoted(suspect)}) as own from {column.rows}"
            )
            every, own = every + counts["every"], own + counts["own"]
        found.append(
            f"{what} {shown(suspect)} has {own:,} of {every:,} rows ({own / every:.1%}): if it stands for no {what}, "
            f"leave its rows out with data.missing=\"['{suspect}']\""
        )
    twice = engine.frame(
        f"select list(key order by key) as ways, count(*) over () as every from {parquet(vocabulary.path)} "
        f"group by {same_id('key')} having count(*) > 1 order by min(key) limit {NUM_EXAMPLES}"
    )
    if len(twice):
        examples = ", ".join(" and ".join(map(shown, ways[:3])) for ways in twice["ways"])
        found.append(
            f"{twice['every'][0]:,} {plural(what)} may be one written in several ways, for example {examples}; they "
            "count as different; if they are the same, write them in one way"
        )
    return found


def same_id(key: str) -> str:
    """SQL for what IDs that are one, but written in several ways, have in common: 3 and 3.0, Ann and ann."""
    return f"coalesce(try_cast({key} as double)::varchar, lower(trim({key})))"


def encode(ids: pl.Series, vocabulary: pl.Series) -> np.ndarray:
    """Indices of IDs in distinct ones of the same type, in memory: int64 [len(ids)], -1 where unknown."""
    assert ids.dtype == vocabulary.dtype, f"{ids.dtype} IDs, {vocabulary.dtype} vocabulary"
    indices = pl.int_range(len(vocabulary), dtype=pl.Int64, eager=True)
    return ids.replace_strict(vocabulary, indices, default=-1, return_dtype=pl.Int64).to_numpy(writable=True)


def parse_id(text: str, vocabulary: pl.Series) -> object:
    """The ID, in the vocabulary's type, that prints as `text`.

    An unknown one is an `UnknownIdError` that names close matches, or else the first few IDs.
    """
    texts = vocabulary.cast(pl.String)
    found = (texts == text).arg_true()
    if len(found):
        return vocabulary[int(found[0])]
    candidates = texts.filter(texts.str.starts_with(text[:1])).head(MAX_CANDIDATES).to_list()
    close = difflib.get_close_matches(text, candidates, n=3)
    near, first = (", ".join(map(shown, some)) for some in (close, texts.head(3)))
    hint = f"did you mean {near}?" if close else f"IDs look like {first}"
    raise UnknownIdError(f"unknown {vocabulary.name or 'ID'} {shown(text)} among {len(vocabulary)}; {hint}")
