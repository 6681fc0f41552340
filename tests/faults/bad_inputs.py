"""Kinds of bad input for row 11 of the scoreboard: what stands in the files, and what `prepare` must say of it."""

from __future__ import annotations

import gzip
import io
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

Content = bytes | str | pl.DataFrame | Callable[[Path], None]

HEADER = "user_id,item_id,rating,timestamp"
ROWS = [f"u{u},i{i},{i + 1},{1_600_000_000 + 10 * u + i}" for u in range(6) for i in range(6)]
GOOD = "\n".join([HEADER, *ROWS, ""])
NEXT = len(ROWS) + 2  # the number of a row behind the good ones
NOTED = GOOD.replace("\n", ",fine\n").replace("fine", "note", 1)  # with a column that nobody reads
GOOD_LINES = "".join(f"{user} 0 1 2 3 4\n" for user in range(6))  # in LightGCN's format
GOOD_FRAME = pl.read_csv(io.StringIO(GOOD))
ITEMS = "item_id,title,price\n" + "".join(f"i{i},Item {i},{i}.5\n" for i in range(5))
FEATURES = {"item_features": {"path": "items.csv", "id_column": "item_id", "columns": ["price"]}}
TITLES = {"item_titles": {"path": "items.csv", "id_column": "item_id", "columns": ["title"]}}
SPLIT = {"split": {"method": "files"}}


@dataclass(frozen=True)
class BadInput:
    """files: by name; the first is `data.interactions`, or with `train.*` and others they are the splits.

    expected: texts that the error has. dropped: rows that skip_bad_rows leaves out; 0 where the file as a whole is
    refused.
    """

    kind: str
    files: dict[str, Content]
    expected: tuple[str, ...]
    dropped: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> dict[str, Any]:
        """Put the files into `folder`; returns the `data` section of a recipe."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            if isinstance(content, pl.DataFrame):
                content.write_parquet(folder / name)
            elif callable(content):
                content(folder / name)
            else:
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        names = {Path(name).stem: name for name in self.files}
        given = {split: names[split] for split in ("train", "valid", "test") if split in names}
        return {"path": str(folder), **(SPLIT | given if given else {"interactions": next(iter(self.files))})} | (
            self.settings
        )


def row(kind: str, text: str, *expected: str, dropped: int = 1) -> BadInput:
    """A row behind the good ones of a CSV file."""
    return BadInput(kind, {"t.csv": GOOD + text + "\n"}, (f"row {NEXT}: ", *expected), dropped)


def file(kind: str, name: str, content: Content, *expected: str, dropped: int = 0, **settings: Any) -> BadInput:
    return BadInput(kind, {name: content}, expected, dropped, settings)


def parquet(kind: str, column: str, value: Any, *expected: str) -> BadInput:
    """A row of a parquet file that has another value in one column."""
    extra = GOOD_FRAME.head(1).with_columns(item_id=pl.lit("i9")).with_columns(pl.lit(value).alias(column))
    whole = pl.concat([GOOD_FRAME, extra], how="vertical_relaxed")
    return BadInput(kind, {"t.parquet": whole}, (f"row {len(ROWS) + 1}: ", *expected), 1)


def column(kind: str, name: str, values: pl.Series | pl.Expr, *expected: str) -> BadInput:
    """A parquet file with a whole column of another kind."""
    return BadInput(kind, {"t.parquet": GOOD_FRAME.with_columns(values.alias(name))}, expected)


def side(kind: str, items: Content, *expected: str, dropped: int = 0, **settings: Any) -> BadInput:
    """A table of item features (or what `settings` say) beside good interactions."""
    return BadInput(kind, {"t.csv": GOOD, "items.csv": items}, expected, dropped, settings or FEATURES)


def splits(kind: str, files: dict[str, Content], *expected: str, dropped: int = 0, **settings: Any) -> BadInput:
    return BadInput(kind, files, expected, dropped, settings)


def packed() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("t.csv", GOOD)
    return stream.getvalue()


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    GOOD_FRAME.write_parquet(stream, compression="uncompressed")
    return stream.getvalue()


def unreadable(path: Path) -> None:
    path.write_text(GOOD)
    path.chmod(0)


def arrow_bytes() -> bytes:
    stream = io.BytesIO()
    GOOD_FRAME.write_ipc(stream)
    return stream.getvalue()


WHOLE = parquet_bytes()
KINDS = [
    # rows of separated text
    row("no user", ",i9,1,1600000000", "user_id is empty"),
    row("a blank user", "   ,i9,1,1600000000", "user_id is empty"),
    row("no item", "u1,,1,1600000000", "item_id is empty"),
    row("a NUL byte in an ID", "u\0,i9,1,1600000000", "NUL byte", r"'u\x00'"),
    row("an ID of a MB", f"{'u' * 2**20},i9,1,1600000000", "too long"),
    row("no weight", "u1,i9,,1600000000", "weight is not a finite number"),
    row("a weight that is text", "u1,i9,good,1600000000", "'good'"),
    row("a weight that is not a number", "u1,i9,NaN,1600000000", "'NaN'"),
    row("an infinite weight", "u1,i9,-inf,1600000000", "'-inf'"),
    row("a weight beyond float32", "u1,i9,1e39,1600000000", "'1e39'"),
    row("no time", "u1,i9,1,", "datetime can't be read"),
    row("a time that is text", "u1,i9,1,yesterday", "'yesterday'"),
    row("a month 13", "u1,i9,1,2020-13-01", "'2020-13-01'"),
    row("a time beyond 64 bits", "u1,i9,1,1e18", "'1e18'"),
    row("too few fields", "u1,i9", "2 fields in 'u1,i9'", "4 as in the header"),
    row("too many fields", "u1,i9,1,1600000000,", "5 fields"),
    row("separators alone", ",,,", "user_id is empty"),
    row("an ANSI sequence in a bad row", "\x1b[2Ju1,i9", r"\x1b[2Ju1"),
    file("a row of TSV too short", "t.tsv", GOOD.replace(",", "\t") + "u1\n", f"row {NEXT}: ", dropped=1),
    file("a bad weight in RecBole", "t.inter", "user_id:token\titem_id:token\trating:float\n"
         + "".join(f"{u}\t{i}\t1\n" for u in range(4) for i in range(4)) + "1\t9\t?\n", "row 18: '?'", dropped=1),
    file("a NUL byte in a LightGCN line", "t.txt", GOOD_LINES + "6 1 2\0\n", "row 7: ", "NUL byte", dropped=1),
    # rows of parquet
    parquet("a null user in parquet", "user_id", None, "user_id is empty"),
    parquet("a null item in parquet", "item_id", None, "item_id is empty"),
    parquet("a null weight in parquet", "rating", None, "weight is not a finite number"),
    parquet("an infinite weight in parquet", "rating", math.inf, "inf"),
    parquet("a null time in parquet", "timestamp", None, "datetime can't be read"),
    # rows across the given splits
    splits("a test user without training", {"train.csv": f"{GOOD}u2,i9,1,1\n",
                                            "test.csv": f"{HEADER}\nu9,i1,1,1\nu1,i9,1,1\n"},
           "test.csv: 1 rows of 1 users without a training row", "'u9'", dropped=1),
    # rows of side tables
    side("a feature that is not a number", ITEMS + "i5,Item,NaN\n", "row 7: 'NaN'", dropped=1),
    side("a feature that is text", ITEMS + "i5,Item,cheap\n", "row 7: 'cheap'", dropped=1),
    side("an infinite feature", ITEMS + "i5,Item,inf\n", "row 7: 'inf'", dropped=1),
    side("features without an ID", ITEMS + ",Item,1\n", "row 7: ", "item_id is empty", dropped=1),
    side("features of an ID again", ITEMS + "i1,Item,1\n", "row 7: 'i1'", "each ID once", dropped=1),
    side("a feature row too short", ITEMS + "i5\n", "row 7: ", "wrong number of fields", dropped=1),
    side("a title again", ITEMS + "i1,Other,1\n", "row 7: 'i1'", dropped=1, **TITLES),
    # whole files
    file("an empty file", "t.csv", b"", "empty (0 bytes)"),
    file("a header alone", "t.csv", HEADER + "\n", "no interactions"),
    file("blank lines", "t.csv", "\n\n\n", "no line with the names"),
    file("NUL bytes", "t.csv", bytes(5000), "no column 'user_id'"),
    file("NUL bytes in LightGCN", "t.txt", bytes(5000), "no interactions"),
    file("NUL bytes in parquet", "t.parquet", bytes(5000), "whole parquet file"),
    file("no user column", "t.csv", GOOD.replace("user_id", "who"), "no column 'user_id'", "data.columns.user_id"),
    file("a column twice", "t.csv", GOOD.replace("rating", "item_id"), "two columns are named 'item_id'"),
    file("semicolons", "t.csv", GOOD.replace(",", ";"), "data.separator=';'"),
    file("tabs in a CSV file", "t.csv", GOOD.replace(",", "\t"), "data.format=tsv"),
    file("a separator that the file lacks", "t.csv", GOOD, "data.separator=','", separator="::"),
    file("Latin-1", "t.csv", GOOD.replace("u3", "ü3").encode("latin-1"), "UTF-8"),
    file("UTF-16", "t.csv", GOOD.encode("utf-16"), "UTF-8"),
    file("UTF-16 without a mark", "t.csv", GOOD.encode("utf-16-le"), "no column 'user_id'"),
    file("invalid UTF-8 in LightGCN", "t.txt", GOOD_LINES.encode() + b"6 \xff\n", "UTF-8"),
    file("gzip under a CSV name", "t.csv", gzip.compress(GOOD.encode()), "UTF-8"),
    file("gzip under a LightGCN name", "t.txt", gzip.compress(GOOD_LINES.encode()), "UTF-8"),
    file("zip under a CSV name", "t.csv", packed(), "t.csv: "),
    file("parquet under a CSV name", "t.csv", WHOLE, "t.csv: "),
    file("CSV under a parquet name", "t.parquet", GOOD, "whole parquet file"),
    file("an unknown suffix", "t.xlsx", GOOD, "data.format"),
    file("a quote that the last row opens", "t.csv", GOOD + '"u1,i9,1,1600000000',
         f"row {NEXT} goes over several lines"),
    file("a quote that opens in a column that nobody reads", "t.csv",
         NOTED.replace("1600000031,", '1600000031,"'), "row 21 goes over several lines", "data.quote=none"),
    file("a quote that is never closed", "t.csv", GOOD.replace("u0,i3", '"u0,i3'), "row 5 goes over several lines"),
    file("a quote that hides rows in a field", "t.csv", GOOD.replace("u0,i3", '"u0,i3').replace("u2,i1", 'u2",i1'),
         "row 5 goes over several lines"),
    file("users without items", "t.txt", "1\n2\n3\n", "no interactions"),
    file("nothing but bad rows", "t.csv", f"{HEADER}\n" + ",,,\n" * 5, "row 2: ", "user_id is empty"),
    file("no weights for min_weight", "t.csv", "user_id,item_id\na,b\n", "data.min_weight", min_weight=1),
    file("no times for the temporal split", "t.csv", "user_id,item_id\na,b\na,c\n", "data.columns.datetime",
         split={"method": "temporal"}),
    file("fewer nodes than parts", "t.csv", f"{HEADER}\nu1,i1,1,1\n", "parts.num_parts=2"),
    file("a folder", "t.csv", Path.mkdir, "the folder has no files"),
    file("no such file", "t.csv", lambda path: None, "no such file"),
    file("a link to nowhere", "t.csv", lambda path: path.symlink_to("nowhere"), "no such file"),
    file("a pipe", "t.csv", lambda path: os.mkfifo(path), "is no regular file"),
    file("a name too long", "t.csv", lambda path: None, "can't be read", interactions="x" * 300 + ".csv"),
    file("truncated parquet", "t.parquet", WHOLE[:-50], "whole parquet file"),
    file("the first half of parquet", "t.parquet", WHOLE[: len(WHOLE) // 2], "whole parquet file"),
    file("invalid UTF-8 in parquet", "t.parquet", WHOLE.replace(b"u4", b"\xff4"), "UTF8"),
    file("parquet without rows", "t.parquet", GOOD_FRAME.clear(), "no interactions"),
    column("lists for users", "user_id", pl.Series([["a"]] * len(ROWS)), "has type large_list"),
    column("structs for items", "item_id", pl.Series([{"a": 1}] * len(ROWS)), "has type struct"),
    column("bytes for users", "user_id", pl.Series([b"a"] * len(ROWS)), "has type large_binary"),
    column("truth values for users", "user_id", pl.Series([True] * len(ROWS)), "has type bool"),
    column("lists for weights", "rating", pl.Series([[1.0]] * len(ROWS)), "weight is not a finite number"),
    file("pairs again where that is an error", "t.csv", "\n".join([GOOD, *ROWS[:7]]), f"row {NEXT}: user 'u0'",
         "7 times", "each pair once", repeated="error"),
    file("an item twice in a LightGCN line", "t.txt", GOOD_LINES + "6 1 1\n", "row 7: user 6, item 1",
         repeated="error"),
    file("a pair again in parquet", "t.parquet", pl.concat([GOOD_FRAME, GOOD_FRAME.head(1)]), "user 'u0', item 'i0'",
         repeated="error"),
    file("times of several units", "t.csv", GOOD.replace("1600000011", "1600000011000"), "times of several units",
         "1 look like milliseconds", "data.time_unit"),
    file("a quote that hides more than a block", "t.csv", ("a," + HEADER + "\n" + ",".join(["", *ROWS[:1]]) + '\n"'
         + "\n".join(f",{row}" for row in ROWS * 5000)), "row 3 goes over several lines", "data.quote=none"),
    file("a file without names", "t.csv", "\n".join(ROWS), "looks like a row", "data.header="),
    file("a list that is a table of names", "t.txt", GOOD.replace(",", "\t"), "looks like names of columns",
         "data.format=tsv"),
    file("a list that is a table of MovieLens", "t.txt", "\n".join(ROWS).replace(",", "::"), "data.separator='::'",
         "data.header=[user_id, item_id, ...]"),
    file("a list that is a table of times", "t.txt", "".join(f"{u} {i} 1 160000000{i}\n" for u in range(6)
         for i in range(6)), "every line has 4 fields", "data.header="),
    file("another encoding than it says", "t.csv", GOOD.replace("u3", "ü3").encode("latin-1"), "UTF-16",
         encoding="utf-16"),
    file("gzip that is none", "t.csv.gz", GOOD, "can't be read as csv"),
    file("half of gzip", "t.csv.gz", gzip.compress(GOOD.encode())[:-20], "can't be read as csv"),
    file("parquet in gzip", "t.parquet.gz", gzip.compress(WHOLE), "is compressed inside", "unpack it"),
    file("half of JSON lines", "t.jsonl", GOOD_FRAME.write_ndjson()[:-20], "can't be read as jsonl"),
    file("a list as a line of JSON", "t.jsonl", "[1, 2]\n", "can't be read as jsonl"),
    file("users of JSON in two types", "t.jsonl", '{"user_id": 1, "item_id": 2}\n{"user_id": "a", "item_id": 2}\n',
         "can't be read as jsonl"),
    file("half of Arrow", "t.arrow", arrow_bytes()[:-300], "can't be read as arrow"),
    file("a database without a query", "t.db", b"SQLite format 3\0", "needs data.query"),
    file("no database", "t.db", GOOD, "can't be read as sqlite", query="select * from t"),
    file("a folder of no tables", "t", lambda path: (path.mkdir(), (path / "_SUCCESS").touch()), "has no files"),
    file("a pattern that nothing meets", "t.csv", GOOD, "no file has a name like this", interactions="u*.csv"),
    file("an address that nobody knows", "t.csv", GOOD, "can't be read", interactions="what://shop/t.csv"),
    file("nothing at an address", "t.csv", GOOD, "can't be read", interactions="memory://none/t.csv"),
    file("Postgres without its extension", "t.csv", GOOD, "install_extension('postgres')",
         interactions="postgresql://host/shop", query="select 1"),
    BadInput("files of other columns", {"t-1.csv": GOOD, "t-2.csv": GOOD.replace("item_id,rating", "rating,item_id")},
             ("t-2.csv", "in the same order"), settings={"interactions": "t-*.csv"}),
    BadInput("files of several formats", {"t.csv": GOOD, "u.parquet": WHOLE}, ("several formats",),
             settings={"interactions": ["t.csv", "u.parquet"]}),
    BadInput("a bad row of a second file", {"t-1.csv": GOOD, "t-2.csv": f"{HEADER}\nu7,i1,bad,1600000000\n"},
             ("row 2 of", "t-2.csv: 'bad'"), 1, {"interactions": "t-*.csv"}),
    file("nobody has so many interactions", "t.csv", GOOD, "no interaction is left", "data.min_user_interactions",
         min_user_interactions=99),
    # given splits
    splits("a pair in train and test", {"train.csv": GOOD, "test.csv": f"{HEADER}\nu1,i1,1,1\n"},
           "1 pairs are also in", "(user 'u1', item 'i1')", dropped=1),
    splits("a pair in train and valid", {"train.csv": GOOD, "valid.csv": f"{HEADER}\nu1,i1,1,1\n",
                                         "test.csv": f"{HEADER}\nu1,i9,1,1\n"},
           "valid_is_part_of_train=true", dropped=1),
    splits("a pair of valid twice", {"train.csv": GOOD, "valid.csv": f"{HEADER}\nu1,i9,1,1\nu1,i9,1,2\n",
                                     "test.csv": f"{HEADER}\nu1,i8,1,1\n"}, "row 3", "valid.csv", "each pair once",
           repeated="error"),
    splits("valid not in train", {"train.csv": GOOD, "valid.csv": f"{HEADER}\nu1,i8,1,1\n",
                                  "test.csv": f"{HEADER}\nu1,i9,1,1\n"}, "expects every valid pair there",
           split={"method": "files", "valid_is_part_of_train": True}),
    splits("columns that a split lacks", {"train.csv": GOOD, "test.csv": "user_id,item_id\nu1,i1\n"},
           "test.csv: no column for datetime", "data.columns.datetime=null"),
    splits("users of test written otherwise", {"train.csv": GOOD.replace("u", "1").replace("1ser", "user"),
                                               "test.csv": f"{HEADER}\n11.0,i9,1,1\n"},
           "none of its 1 users", "'11.0' may be '11'"),
    splits("no item of test in train", {"train.csv": GOOD, "test.csv": f"{HEADER}\nu1,I1,1,1\n"},
           "none of its 1 items", "'I1' may be 'i1'"),
    splits("an empty test file", {"train.csv": GOOD, "test.csv": b""}, "test.csv: the file is empty"),
    # side tables
    side("no feature file", lambda path: None, "no such file"),
    side("features without an ID column", ITEMS.replace("item_id", "sku"), "data.item_features.id_column"),
    side("features without their column", ITEMS.replace("price", "cost"), "data.item_features.columns"),
    side("features of other IDs", ITEMS.replace("\ni", "\nsku"), "no ID of the interactions"),
    side("a header of features alone", "item_id,title,price\n", "has no rows"),
    side("features with a quote that is never closed", ITEMS.replace("i2,", '"i2,'), "goes over several lines"),
    side("an ID of features over two lines", ITEMS + '"i5\ni6",Item,1\n', "row 7 goes over several lines"),
    side("a feature over two lines", ITEMS + 'i5,Item,"1\n2"\n', "row 7 goes over several lines"),
    side("two title columns", ITEMS, "expected one column", item_titles={**TITLES["item_titles"],
                                                                           "columns": ["title", "price"]}),
]  # fmt: skip
if os.geteuid() != 0:  # root reads everything
    KINDS.append(file("no permission", "t.csv", unreadable, "can't be read"))
