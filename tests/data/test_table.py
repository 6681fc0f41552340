"""The interaction table: every format, every kind of bad row."""

from __future__ import annotations

import gzip
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_sets import load_table

from dist_gat.base.errors import DataError

LINES = ["user_id,item_id,rating,timestamp", "a,x,1,100", "a,y,2,200", "b,x,3.5,300"]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path, **settings: Any) -> list[tuple[Any, ...]]:
    """Those of a file that is in order, sorted by user and item."""
    loaded = load_table(path, **settings)
    assert loaded.dataset.dropped == {}
    return loaded.rows()


def usable(path: Path, **settings: Any) -> tuple[list[tuple[Any, ...]], int]:
    """The rows that are left without the bad ones, and the number of these."""
    loaded = load_table(path, skip_bad_rows=True, **settings)
    return loaded.rows(), loaded.dataset.dropped.get("bad rows", 0)


def refused(path: Path, *expected: str, **settings: Any) -> None:
    """Reading must fail, with the file's name and all of `expected` in the message."""
    with pytest.raises(DataError) as caught:
        load_table(path, **settings)
    for text in (path.name, *expected):
        assert text in str(caught.value)


EXPECTED = [("a", "x", 1.0, 100_000_000), ("a", "y", 2.0, 200_000_000), ("b", "x", 3.5, 300_000_000)]


@pytest.mark.parametrize(
    ("name", "separator", "settings"),
    [
        ("t.csv", ",", {}),
        ("t.tsv", "\t", {}),
        ("t.csv", ";", {"separator": ";"}),
        ("t.tsv", "|", {"separator": "|"}),
        ("t.data", ",", {"format": "csv"}),
    ],
)
def test_separated_text(tmp_path: Path, name: str, separator: str, settings: dict[str, str]) -> None:
    text = "\n".join(LINES).replace(",", separator)
    assert rows(write(tmp_path, name, text), **settings) == EXPECTED


def test_text_details(tmp_path: Path) -> None:
    """A byte-order mark, Windows line ends, blank lines, quotes, other columns and IDs like 'NA' are legal."""
    text = '\ufeffuser_id,note,item_id\r\n"a,1","two\r\nlines",NA\r\n\r\nb,,null\r\n\r\n'
    assert rows(write(tmp_path, "t.csv", text)) == [("a,1", "NA"), ("b", "null")]


def test_quoted_line_breaks_in_a_large_file(tmp_path: Path) -> None:
    """Files are read in blocks; a block must not end inside a quoted field."""
    lines = [f'{number},"{"x" * 500}\n{"y" * 500}",7\n' for number in range(5000)]
    found = rows(write(tmp_path, "t.csv", "user_id,note,item_id\n" + "".join(lines)))
    assert found == [(number, 7) for number in range(5000)]


def test_recbole(tmp_path: Path) -> None:
    text = "item_id:token\tuser_id:token\trating:float\ttimestamp:float\tx:float_seq\n7\t1\t4\t10\t1 2\n"
    assert rows(write(tmp_path, "t.inter", text)) == [(1, 7, 4.0, 10_000_000)]


def test_lightgcn(tmp_path: Path) -> None:
    """Users without items, blank lines, a user on two lines and any white space are legal."""
    path = write(tmp_path, "t.txt", "0 5 6 \n1\n\n 2\t7\r\n0 8")
    assert rows(path) == [(0, 5), (0, 6), (0, 8), (2, 7)]


@pytest.mark.parametrize(
    ("users", "items", "types"),
    [
        (pl.Series([3, 1], dtype=pl.Int32), pl.Series([2**63 + 1, 2], dtype=pl.UInt64), (pl.Int64, pl.UInt64)),
        (pl.Series([2**53 + 1, -1]), pl.Series([1, 2], dtype=pl.Decimal(10, 0)), (pl.Int64, pl.Int64)),
        (pl.Series(["1", "02"]), pl.Series(["é", "x"]), (pl.String, pl.String)),
        (pl.Series(["1", "2"]), pl.Series(["é", "x"], dtype=pl.Categorical), (pl.String, pl.String)),
        # a column with gaps of pandas has floats for integers
        (pl.Series([1.0, 2.0]), pl.Series([0.5, 1.5], dtype=pl.Float32), (pl.Int64, pl.Float64)),
    ],
)
def test_ids_of_parquet(tmp_path: Path, users: pl.Series, items: pl.Series, types: tuple[Any, Any]) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"extra": [[1], [2]], "user_id": users, "item_id": items}).write_parquet(path)
    loaded = load_table(path)
    assert (loaded.users.dtype, loaded.items.dtype) == types
    expected = zip(users.cast(types[0]), items.cast(types[1]), strict=True)
    assert loaded.rows() == sorted(expected)


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (["1", "-2", "30"], pl.Int64),
        (["1", "02"], pl.String),
        (["1", "+2"], pl.String),
        (["1", "-0"], pl.String),
        (["1", "2.0"], pl.String),
        (["1", "99999999999999999999"], pl.String),
        (["1", "x"], pl.String),
    ],
)
def test_text_ids_become_integers_only_exactly(tmp_path: Path, ids: list[str], dtype: Any) -> None:
    loaded = load_table(write(tmp_path, "t.csv", "user_id,item_id\n" + "".join(f"{x},i\n" for x in ids)))
    assert loaded.users.dtype == dtype
    assert sorted(loaded.users.cast(pl.String)) == sorted(ids)


def test_names(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "who,what,weight,rating,when\na,x,1,9,2020-01-01\n")
    mapping = {"user_id": "who", "item_id": "what", "datetime": "when"}
    assert rows(path, columns=mapping) == [("a", "x", 1.0, 1_577_836_800_000_000)]
    assert rows(path, columns={**mapping, "weight": "rating"})[0][2] == 9.0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1577836800", datetime(2020, 1, 1, tzinfo=timezone.utc)),
        ("1577836800.25", datetime(2020, 1, 1, 0, 0, 0, 250_000, tzinfo=timezone.utc)),
        ("2020-01-01", datetime(2020, 1, 1, tzinfo=timezone.utc)),
        ("2020-01-01 12:30", datetime(2020, 1, 1, 12, 30, tzinfo=timezone.utc)),
        ("2020-01-01T12:30:01.5", datetime(2020, 1, 1, 12, 30, 1, 500_000, tzinfo=timezone.utc)),
        ("2020-01-01T12:30:01Z", datetime(2020, 1, 1, 12, 30, 1, tzinfo=timezone.utc)),
        ("2020-01-01 12:30:01+02:00", datetime(2020, 1, 1, 10, 30, 1, tzinfo=timezone.utc)),
    ],
)
def test_datetimes_of_text(tmp_path: Path, text: str, moment: datetime) -> None:
    path = write(tmp_path, "t.csv", f"user_id,item_id,datetime\na,x,{text}\na,y,0\n")
    assert [row[2] for row in rows(path)] == [round(moment.timestamp() * 1e6), 0]


def test_datetimes_of_parquet(tmp_path: Path) -> None:
    moment = pl.Series([datetime(2020, 1, 1, tzinfo=timezone.utc)])
    for number, column in enumerate([moment, moment.dt.cast_time_unit("ms"), moment.dt.date(), moment.dt.epoch("s")]):
        path = tmp_path / f"{number}.parquet"
        pl.DataFrame({"user_id": [1], "item_id": [1], "datetime": column}).write_parquet(path)
        assert rows(path) == [(1, 1, 1_577_836_800_000_000)]


def test_min_weight_is_no_bad_row(tmp_path: Path) -> None:
    """A pair that comes twice is fine if only one of them has enough weight."""
    path = write(tmp_path, "t.csv", "user_id,item_id,rating\na,x,1\na,x,5\nb,x,4\n")
    assert rows(path, min_weight=4) == [("a", "x", 5.0), ("b", "x", 4.0)]
    refused(path, "min_weight=6", min_weight=6)
    refused(write(tmp_path, "u.csv", "user_id,item_id\na,x\n"), "data.columns.weight", min_weight=4)


@pytest.mark.parametrize(
    ("lines", "row", "found", "num_bad"),
    [
        (["a,x,1,100", ",y,2,200"], 3, "user_id is empty", 1),
        (["a,,1,100", "b,  ,1,100", "b,y,2,200"], 2, "item_id is empty", 2),
        (["a,x,1,100", "a,y,,200"], 3, "weight is not a finite number", 1),
        (["a,x,NaN,100", "a,y,2,200"], 2, "weight is not a finite number", 1),
        (["a,x,1,100", "a,y,-inf,200"], 3, "weight is not a finite number", 1),
        (["a,x,1,100", "a,y,1e300,200"], 3, "weight is not a finite number", 1),
        (["a,x,1,100", "a,y,good,200"], 3, "'good'", 1),
        (["a,x,1,100", "a,y,1,yesterday"], 3, "'yesterday'", 1),
        (["a,x,1,100", "a,y,1,2020-13-01"], 3, "datetime can't be read", 1),
        (["a,x,1,100", "a,y,1,"], 3, "datetime can't be read", 1),
        (["a,x,1,100", "a,y,1,1e18"], 3, "datetime can't be read", 1),
        (["a,x,1,100", "a,y", "b,y,1,100,7"], 3, "2 fields in 'a,y'", 2),
        (["a,x,1,100", "", "a,y,,1"], 3, "weight is not a finite number", 1),
        (["a,x", "a,y,,1", "a,z,1,1"], 3, "weight is not a finite number", 2),
    ],
)
def test_bad_rows(tmp_path: Path, lines: list[str], row: int, found: str, num_bad: int) -> None:
    path = write(tmp_path, "t.csv", "\n".join([LINES[0], *lines]))
    refused(path, f"row {row}: ", found, f"{num_bad} bad row", "expected", "data.skip_bad_rows=true", "--skip-bad-rows")
    found, dropped = usable(path)
    assert dropped == num_bad
    assert len(found) == len([line for line in lines if line]) - num_bad


@pytest.mark.parametrize(("times", "row"), [((100, 200), 4), ((200, 100), 2)])
def test_pairs_that_come_again_may_be_an_error(tmp_path: Path, times: tuple[int, int], row: int) -> None:
    """The earliest by time is the one that is not again."""
    lines = [f"a,x,1,{times[0]}", "b,x,1,1", f"a,x,2,{times[1]}"]
    path = write(tmp_path, "t.csv", "\n".join([LINES[0], *lines]))
    refused(path, f"row {row}: ", "user 'a', item 'x'", "1 bad row", "data.repeated", repeated="error")


def test_many_bad_rows_are_counted_and_few_are_shown(tmp_path: Path) -> None:
    lines = [f"a,{item},x,," if item % 2 else f",{item},x,1" for item in range(10)]
    path = write(tmp_path, "t.csv", "\n".join([*LINES, *lines]))
    refused(path, "10 bad rows", "5 times (row 6: ", "row 8: ", ", ...", "weight is not a finite number, 5 times")


AGAIN = "user_id,item_id,rating,timestamp\na,x,1,300\nb,x,2,1\na,x,5,100\na,x,4,200\n"


@pytest.mark.parametrize(
    ("repeated", "weight", "second"),
    [("first", 5, 100), ("last", 1, 300), ("sum", 10, 300), ("max", 5, 300), ("count", 3, 300), ("auto", 1, 300)],
)
def test_repeated_pairs_have_a_meaning(tmp_path: Path, repeated: str, weight: float, second: int) -> None:
    loaded = load_table(write(tmp_path, "t.csv", AGAIN), repeated=repeated)
    assert loaded.rows() == [("a", "x", weight, second * 10**6), ("b", "x", 1 if repeated == "count" else 2, 10**6)]
    assert loaded.dataset.notes["repeated"]["interacts"]["rows"] == 2


def test_of_repeated_pairs_counts_add_up_and_the_first_of_plain_ones_stays(tmp_path: Path) -> None:
    counts = "user_id,item_id,plays,score\na,x,1,5\na,x,2,3\n"
    columns = {"weight": "plays", "labels": {"liked": "score"}}
    assert rows(write(tmp_path, "t.csv", counts), columns=columns) == [("a", "x", 3, 3)]
    plain = "user_id,item_id,timestamp\na,x,200\na,x,100\n"
    assert rows(write(tmp_path, "u.csv", plain)) == [("a", "x", 100_000_000)]
    counted = load_table(write(tmp_path, "u.csv", plain), repeated="count")
    assert counted.dataset.notes["repeated"]["interacts"]["rules"] == {"weight": "count", "time": "last"}
    assert counted.rows() == [("a", "x", 2, 200_000_000)]
    without_time = load_table(write(tmp_path, "t.txt", "1 5 6 5\n1 6\n"))
    assert without_time.rows() == [(1, 5), (1, 6)]
    assert without_time.dataset.notes["repeated"]["interacts"] == {"rows": 2, "rules": {}}


def test_repetition_in_lightgcn_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "t.txt", "1 4\n\n2 5 5 5\n")
    refused(path, "2 bad rows", "row 3: user 2, item 5", "lines of the file", repeated="error")


def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame({"user_id": [1.0, np.nan, None], "item_id": [1, 2, 3], "weight": [None, 1.0, np.inf]})
    frame.write_parquet(path)
    refused(
        path, "3 bad rows (row 1 is the first)", "user_id is empty, 2 times (row 2: nan, row 3: None)", "row 1: None"
    )
    frame.with_columns(weight=pl.lit(1)).write_parquet(path)
    assert usable(path) == ([(1, 1, 1.0)], 2)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", b"", ["empty (0 bytes)"]),
        ("t.csv", b"\n\n", ["no line with the names"]),
        ("t.csv", b"user_id,item_id\n", ["no interactions"]),
        ("t.txt", b"1\n2\n", ["no interactions"]),
        ("t.txt", b"\n", []),
        ("t.csv", b"user,item_id\n1,2\n", ["no column 'user_id'", "'user', 'item_id'", "data.columns.user_id=NAME"]),
        ("t.csv", b"user_id;item_id\n1;2\n", ["data.separator=';'"]),
        ("t.csv", b"user_id\titem_id\n1\t2\n", ["data.format=tsv"]),
        ("t.tsv", b"user_id,item_id\n1,2\n", ["data.separator=','"]),
        ("t.csv", b"user_id,item_id,item_id\n1,2,3\n", ["two columns", "'item_id'"]),
        ("t.csv", b"user_id,item_id\n\xff\xfe,1\n", ["UTF-8"]),
        ("t.csv", "user_id,item_id\n1,2\n".encode("utf-16"), ["UTF-8"]),
        ("t.txt", b"1 2\n3 \xff\n", ["UTF-8"]),
        ("t.parquet", b"user_id,item_id\n1,2\n", ["parquet", "data.format"]),
        ("t.xlsx", b"whatever", ["data.format", "recbole"]),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, expected: list[str], skip: bool) -> None:
    refused(write(tmp_path, name, content), *expected, skip_bad_rows=skip)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("lines", "row"),
    [
        (["a,x,1,1", '"b,x,1,1', "c,x,1,1", "d,x,1,1"], 3),
        (["a,x,1,1", "b,x,1,1,5", '"c,x,1,1', "d,x,1,1"], 4),
        (["a,x,1,1", '"b,x,1,1', 'c",x,1,1', "d,x,1,1"], 3),
        (['a,"x,1,1', 'b,x",1,1', "c,x,1,1"], 2),
        (['a,x,"1', 'b,x,1",1', "c,x,1,1"], 2),
        (['a,x,1,"1', "b,x,1,1", 'c,x,1,1"'], 2),
    ],
)
def test_a_quote_that_hides_rows_is_refused(tmp_path: Path, lines: list[str], row: int, skip: bool) -> None:
    """Dropped as one bad row it would take others with it, unseen."""
    path = write(tmp_path, "t.csv", "\n".join([LINES[0], *lines]))
    refused(path, f"row {row} goes over several lines", "close or remove the quote", skip_bad_rows=skip)


def test_an_id_of_parquet_may_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"user_id": ["a\nb"], "item_id": [1]}).write_parquet(path)
    assert rows(path) == [("a\nb", 1)]


@pytest.mark.parametrize("bad", ["a\0", "é" * 2049])
def test_ids_that_are_no_text_or_too_long(tmp_path: Path, bad: str) -> None:
    good = "é" * 2048
    frame = pl.DataFrame({"user_id": [good, bad], "item_id": ["x", "x"]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    for name, row in (("t.parquet", 2), ("t.csv", 3)):
        refused(tmp_path / name, f"row {row}: ", "user_id is empty, too long or has a NUL byte", "1 to 4096 bytes")
        assert usable(tmp_path / name) == ([(good, "x")], 1)


def test_messages_stay_short(tmp_path: Path) -> None:
    names = ",".join(f"column{number}" for number in range(5000))
    with pytest.raises(DataError, match="'column19' and 4980 more; ") as caught:
        load_table(write(tmp_path, "t.csv", f"{names}\n1,2\n"))
    assert len(str(caught.value)) < 1000
    twice = write(tmp_path, "u.csv", f"a,{'x' * 1000},{'x' * 1000}\n1,2,3\n")
    refused(twice, "two columns are named 'xxx", "...", columns={"user_id": "x" * 1000, "item_id": "a"})


def test_an_archive_without_its_suffix_is_named(tmp_path: Path) -> None:
    for name, text in (("t.csv", "user_id,item_id\n1,2\n"), ("t.txt", "1 2 3\n")):
        refused(write(tmp_path, name, gzip.compress(text.encode())), "gzip archive, not text in UTF-8", ".gz")


def test_unreadable_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame({"user_id": ["a" * 50] * 50, "item_id": range(50)})
    frame.write_parquet(path, compression="uncompressed")
    whole = path.read_bytes()
    refused(write(tmp_path, "cut.parquet", whole[:-100]), "whole parquet file")
    refused(write(tmp_path, "text.parquet", whole.replace(b"a" * 50, b"a" * 49 + b"\xff")), "UTF8")
    frame.with_columns(user_id=pl.col("user_id").cast(pl.Binary)).write_parquet(path)
    refused(path, "'user_id'", "binary", "as text")
    frame.rename({"user_id": "u"}).write_parquet(path)
    refused(path, "data.columns.user_id=NAME")


def test_wrong_paths_and_separators(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "no such file", "data.path")
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", "is no regular file")
    refused(tmp_path / f"{'x' * 300}.csv", "can't be read")


def test_all_rows_bad(tmp_path: Path) -> None:
    refused(write(tmp_path, "t.csv", "user_id,item_id\n,1\n,2\n"), "none of the 2 rows is left", skip_bad_rows=True)


LABELLED = "user_id,item_id,bought,days\na,x,1,3\na,y,0,2\nb,x,1,9\n"


def test_labels_are_read_by_their_names(tmp_path: Path) -> None:
    columns: Any = {"labels": {"buy": "bought", "exposure": "days", "again": "bought"}}
    found = load_table(write(tmp_path, "t.csv", LABELLED), columns=columns).columns["train"]
    assert list(found) == ["source", "target", "buy", "exposure", "again"]
    assert found["buy"].tolist() == found["again"].tolist() == [1, 0, 1]
    assert found["exposure"].tolist() == [3, 2, 9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LABELLED.replace("y,0", "y,no"), ["row 3", "buy is not a finite number", "'no'"]),
        (LABELLED.replace("y,0", "y,"), ["row 3", "buy is not a finite number"]),
        (LABELLED.replace("bought", "sold"), ["no column 'bought'", "data.columns.labels.buy"]),
    ],
)
def test_labels_that_are_no_numbers_or_not_there(tmp_path: Path, text: str, expected: list[str]) -> None:
    columns: Any = {"labels": {"buy": "bought"}}
    refused(write(tmp_path, "t.csv", text), *expected, columns=columns)
