"""Parquet files from anybody: read, or refused with one kind of error."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from dist_gat.data.parquet import read_parquet

EVIL = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": b"\x80\x04\xff"}


def test_columns_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "é"], "c": [0.5, float("nan")]})
    frame.write_parquet(tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet").equals(frame)
    assert read_parquet(tmp_path / "t.parquet", ["b"]).equals(frame.select("b"))


def test_what_a_file_says_of_its_columns_is_passed_over(tmp_path: Path) -> None:
    """Polars panics on it, which no `except Exception` catches."""
    table = pa.table([["x"]], schema=pa.schema([pa.field("a", pa.string(), metadata=EVIL)]))
    pa_parquet.write_table(table, tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet").rows() == [("x",)]


def test_a_panic_is_an_error_like_others(tmp_path: Path) -> None:
    inner = pa.struct([pa.field("b", pa.string(), metadata=EVIL)])
    pa_parquet.write_table(pa.table({"a": pa.array([{"b": "x"}], inner)}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="Utf8Error"):
        read_parquet(tmp_path / "t.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100, b"user_id,item_id\n1,2\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="."):
        read_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="No such file"):
        read_parquet(tmp_path / "none.parquet")
