"""Columns of nodes by kind: what they become, whatever the file, and what is refused with row and reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
from data_sets import Loaded, load
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfTransformer

from dist_gat.base.errors import DataError
from dist_gat.config.data_sections import DataConfig
from dist_gat.data.node_columns import NodeColumns

# item 4 is in test alone: training doesn't meet it
TRAIN = "user_id,item_id\n1,0\n1,1\n2,1\n2,2\n2,3\n"
TEST = "user_id,item_id\n1,4\n1,2\n"
NAN = math.nan


def load_columns(folder: Path, columns: dict[str, Any], table: Any = None, **settings: Any) -> Loaded:
    """Of items, from a table that is text, a frame, or there already."""
    (folder / "train.csv").write_text(TRAIN)
    (folder / "test.csv").write_text(TEST)
    item: dict[str, Any] = {"columns": columns}
    if isinstance(table, pl.DataFrame):
        table.write_parquet(folder / "items.parquet")
        item["table"] = "items.parquet"
    elif table is not None:
        (folder / "items.csv").write_text(table)
        item["table"] = "items.csv"
    config = {"path": str(folder), "train": "train.csv", "test": "test.csv", "split": {"method": "files"}}
    return load(DataConfig.model_validate({**config, "nodes": {"item": item}, **settings}))


def columns_of(*args: Any, **settings: Any) -> NodeColumns:
    return load_columns(*args, **settings).dataset.columns["item"]


def codes(found: NodeColumns, name: str) -> list[list[str]]:
    """The categories of each node."""
    (column,) = (column for column in found.layout if column.name == name)
    names = found.categories[name]
    return [[names[code] for code in row if code >= 0] for row in found.values[:, column.slice].view(np.int32).tolist()]


def test_every_kind_in_one_table(tmp_path: Path) -> None:
    """A row that is missing, and a value that is; the columns stand in one matrix, numbers first."""
    table = "item_id,maker,year,genres\n0,ann,1990,drama crime\n1,bo,,\n2,ann,2000,crime\n3,,2010,comedy drama\n"
    year = {"kind": "numeric", "scale": "none"}
    kinds = {"maker": "category", "year": year, "genres": "categories", "left_out": None}
    found = columns_of(tmp_path, kinds, table)
    assert [(c.name, c.offset, c.width, c.num_values) for c in found.layout] == [
        ("known", 0, 1, 4), ("year", 1, 1, 3), ("maker", 2, 1, 3), ("genres", 3, 2, 3)
    ]  # fmt: skip
    np.testing.assert_array_equal(found.values[:, 0], [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(found.values[:, 1], [1990, NAN, 2000, 2010, NAN])
    assert codes(found, "maker") == [["ann"], ["bo"], ["ann"], [], []]
    assert codes(found, "genres") == [["drama", "crime"], [], ["crime"], ["comedy", "drama"], []]
    assert found.categories["genres"].to_list() == ["crime", "drama", "comedy"]  # by frequency
    assert any("1 of 5 items have no row in" in warning for warning in found.warnings)


def test_a_category_that_training_never_saw_counts_as_missing(tmp_path: Path) -> None:
    table = "item_id,maker\n0,ann\n1,ann\n2,bo\n3,bo\n4,cy\n"
    found = columns_of(tmp_path, {"maker": "category"}, table)
    assert codes(found, "maker") == [["ann"], ["ann"], ["bo"], ["bo"], []]
    assert found.layout[1].num_unknown == 1
    assert any("maker of item: 1 categories are of no training node" in warning for warning in found.warnings)
    few = columns_of(tmp_path, {"maker": {"kind": "category", "max_categories": 1}}, table)
    assert codes(few, "maker") == [["ann"], ["ann"], [], [], []]
    assert few.layout[1].num_unknown == 2


def test_weights_of_categories_are_tf_idf_of_training_nodes(tmp_path: Path) -> None:
    counts = np.array([[3, 0, 1, 0], [1, 1, 0, 0], [0, 2, 2, 1], [0, 0, 0, 0], [5, 0, 0, 2]])
    scipy.sparse.save_npz(tmp_path / "bag.npz", scipy.sparse.csr_array(counts))
    config = {"kind": "categories", "table": "bag.npz", "max_length": 2, "weights": "tf_idf"}
    found = columns_of(tmp_path, {"bag": config})
    _, codes_of_bag, weights = found.layout
    assert (weights.name, weights.kind, weights.width) == ("bag.weights", "weights", 2)
    # item 4 is in test alone: its word 3 is known by item 2
    expected = TfidfTransformer(sublinear_tf=True, norm=None).fit(counts[:4]).transform(counts).toarray()
    names, codes_nL = found.categories["bag"], found.values[:, codes_of_bag.slice].view(np.int32)
    for item in range(5):
        heaviest = np.argsort(-expected[item], kind="stable")[: min(2, int((counts[item] > 0).sum()))]
        kept = [int(names[code]) for code in codes_nL[item].tolist() if code >= 0]
        own = expected[item][kept]
        np.testing.assert_allclose(np.sort(own), np.sort(expected[item][heaviest]))
        of_length_1 = np.append(own / (np.linalg.norm(own) or 1), np.zeros(2 - len(own)))
        np.testing.assert_allclose(found.values[item, weights.slice], of_length_1, rtol=1e-6)


def test_a_table_with_a_row_for_each_category(tmp_path: Path) -> None:
    """In the order of its rows; an ID that is missing is a bad row each time."""
    table = "item_id,tag\n1,b\n0,a\n1,a\n2,b\n1,a\n"
    found = columns_of(tmp_path, {"tag": "categories"}, table)
    assert codes(found, "tag") == [["a"], ["b", "a"], ["b"], [], []]
    with pytest.raises(DataError, match="item_id is empty, 2 times"):
        columns_of(tmp_path, {"tag": "categories"}, table + ",a\n,b\n")


def test_lists_of_a_parquet_file(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "item_id": [0, 1, 2, 3, 4],
        "tags": [["b", "a", "b"], ["a", "c", "b"], None, [], ["a"]],
        "numbers": [[1, 2], [2], None, [7], [2]],
        "picture": pl.Series([[1.0, 0.0], [3.0, 0.0], None, [5.0, 4.0], [1.0, 2.0]], dtype=pl.List(pl.Float64)),
    })  # fmt: skip
    kinds = {
        "tags": {"kind": "categories", "max_length": 2}, "numbers": "categories", "picture": "vector",
        "unit": {"kind": "vector", "column": "picture", "scale": "l2"},
    }  # fmt: skip
    found = columns_of(tmp_path, kinds, frame)
    assert codes(found, "tags") == [["b", "a"], ["a", "c"], [], [], ["a"]]
    assert found.layout[1].num_cut == 1
    assert codes(found, "numbers") == [["1", "2"], ["2"], [], ["7"], ["2"]]
    picture, unit = (found.values[:, column.slice] for column in found.layout[3:])
    deviation = [math.sqrt(8 / 3), math.sqrt(32 / 9)]
    means = np.array([3, 4 / 3])
    expected = (np.array([[1, 0], [3, 0], [NAN, NAN], [5, 4], [1, 2]]) - means) / deviation
    np.testing.assert_allclose(picture, expected, rtol=1e-6)
    np.testing.assert_allclose(unit[[0, 1, 4]], [[1, 0], [1, 0], [5**-0.5, 2 * 5**-0.5]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_matrix_by_row_number_or_by_a_table_of_ids(tmp_path: Path, dtype: type) -> None:
    rows = np.arange(8, dtype=dtype).reshape(4, 2)
    np.save(tmp_path / "m.npy", rows)
    plain = {"kind": "vector", "table": "m.npy", "scale": "none"}
    found = columns_of(tmp_path, {"m": plain})
    np.testing.assert_array_equal(found.values[:, 1:], [*rows, [NAN, NAN]])
    (tmp_path / "ids.csv").write_text("item_id\n3\n99\n0\n4\n")
    found = columns_of(tmp_path, {"m": {**plain, "ids": "ids.csv"}})
    np.testing.assert_array_equal(found.values[:, 1:], [rows[2], [NAN, NAN], [NAN, NAN], rows[0], rows[3]])
    (tmp_path / "ids.csv").write_text("item_id\n3\n99\n0\n")
    refused(tmp_path, {"m": {**plain, "ids": "ids.csv"}}, None, "3 rows", "4", "an ID for each row")
    (tmp_path / "ids.csv").write_text("item_id\n3\n3\n0\n4\n")
    refused(tmp_path, {"m": {**plain, "ids": "ids.csv"}}, None, "1 bad rows", skip_bad_rows=True)


def test_a_sparse_matrix(tmp_path: Path) -> None:
    words = np.array([[3, 0, 1, 9], [0, 2, 0, 0], [1, 1, 0, 5], [0, 0, 0, 0], [4, 0, 0, 0]])
    scipy.sparse.save_npz(tmp_path / "words.npz", scipy.sparse.csr_array(words))
    kinds = {
        "words": {"kind": "categories", "table": "words.npz", "max_length": 2},
        "short": {"kind": "vector", "table": "words.npz", "reduce": 2, "scale": "none"},
    }
    found = columns_of(tmp_path, kinds)
    assert codes(found, "words") == [["3", "0"], ["1"], ["3", "0"], [], ["0"]]
    short = found.values[:, found.layout[2].slice]
    assert np.isfinite(short).all()
    assert (short[3] == 0).all()
    np.testing.assert_array_equal(columns_of(tmp_path, kinds).values, found.values)  # NaN aside, there is none
    refused(tmp_path, {"m": {**kinds["short"], "reduce": 4}}, None, "reduce=4", "fewer than")
    refused(tmp_path, {"m": {"kind": "vector", "table": "words.npz"}}, None, "nodes.item.columns.m.reduce")


@pytest.mark.parametrize("kind", ["numeric", "category", "categories"])
def test_a_column_that_no_training_node_has(tmp_path: Path, kind: str) -> None:
    found = columns_of(tmp_path, {"x": kind}, "item_id,x\n0,\n1,\n2,\n3,\n4,7\n")
    column = found.layout[1]
    if kind == "numeric":
        np.testing.assert_array_equal(found.values[:, 1], [NAN, NAN, NAN, NAN, 7])
        assert column.num_values == 1
    else:
        assert codes(found, "x") == [[]] * 5
        assert (column.num_values, column.num_categories, column.num_unknown) == (0, 0, 1)
        assert any("no node has a value that training knows" in warning for warning in found.warnings)


def test_values_that_stand_for_none(tmp_path: Path) -> None:
    table = "item_id,year,maker\n0,1990,ann\n1,?,?\n2,2000,bo\n3,2010,?\n"
    kinds = {"year": {"kind": "numeric", "missing": ["?"]}, "maker": {"kind": "category", "missing": ["?"]}}
    found = columns_of(tmp_path, kinds, table)
    assert np.isnan(found.values[:, 1]).tolist() == [False, True, False, False, True]
    assert codes(found, "maker") == [["ann"], [], ["bo"], [], []]


def refused(folder: Path, columns: dict[str, Any], table: Any, *expected: str, **settings: Any) -> None:
    with pytest.raises(DataError) as caught:
        load_columns(folder, columns, table, **settings)
    for text in expected:
        assert text in str(caught.value)


LISTS = {"item_id": [0, 1, 2]}


@pytest.mark.parametrize(
    ("kind", "table", "expected"),
    [
        ("numeric", "item_id,x\n0,1\n1,tall\n", ["row 3: 'tall'", "x is not a finite number"]),
        ("numeric", "item_id,x\n0,nan\n1,2\n", ["row 2: 'nan'", "x is not a finite number"]),
        ("numeric", "item_id,x\n0,1e60\n1,2\n", ["row 2: '1e60'"]),
        ("numeric", pl.DataFrame({"item_id": [0, 1], "x": [1.0, math.inf]}), ["row 2: inf"]),
        ("numeric", pl.DataFrame({**LISTS, "x": [[1], [2], [3]]}), ["has type", "expected numbers"]),
        ("category", f"item_id,x\n0,a\n1,{'b' * 100_000}\n", ["row 3: 'bbb", "x is no category", "at most 4096 bytes"]),
        ("category", pl.DataFrame({**LISTS, "x": [["a"], ["b"], []]}), ["the kind is categories"]),
        ("categories", f"item_id,x\n0,a\n1,c {'b' * 100_000}\n", ["row 3: 'c bbb", "x is no list of categories"]),
        ("vector", "item_id,x\n0,1 2\n", ["has type", "name an .npy file"]),
        ("vector", pl.DataFrame({**LISTS, "x": [[1.0, 2], [1, 2], [3]]}), ["row 3: [3.0]", "no vector of 2 finite"]),
        (
            "vector",
            pl.DataFrame({**LISTS, "x": [[1.0, 2], [1.0, NAN], [3, 4]]}),
            ["row 2: [1.0, nan]", "2 finite"],
        ),
        ("vector", pl.DataFrame({**LISTS, "x": [[1.0, 2.0], [None, 2.0], [3.0, 4.0]]}), ["row 2: [None, 2.0]"]),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_row(
    tmp_path: Path, kind: str, table: Any, expected: list[str]
) -> None:
    refused(tmp_path, {"x": kind}, table, *expected)
    if not any("has type" in text or "the kind" in text for text in expected):
        dropped = load_columns(tmp_path, {"x": kind}, table, skip_bad_rows=True).dataset.dropped
        assert dropped == {"bad rows of item columns": 1}


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.array([[1, 2], [3, np.inf], [5, 6], [7, 8]]), ["m.npy: 1 rows", "row 1;", "--skip-bad-rows"]),
        (np.array([[1, 2], [1e300, 1]]), ["m.npy: 1 rows", "row 1;"]),
        (np.array([1.0, 2]), ["shape [2]"]),
        (np.array([["a", "b"]]), ["the type <U1"]),
        (np.array([[{}]]), ["m.npy: can't be read", "without Python objects"]),
    ],
)
def test_matrices_that_hold_no_vectors(tmp_path: Path, matrix: np.ndarray, expected: list[str]) -> None:
    np.save(tmp_path / "m.npy", matrix, allow_pickle=True)
    refused(tmp_path, {"x": {"kind": "vector", "table": "m.npy"}}, None, *expected)


def test_files_and_columns_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path, {"x": {"kind": "vector", "table": "no.npy"}}, None, "no.npy: no such file")
    refused(tmp_path, {"x": "numeric"}, "item_id,y\n0,1\n", "no column 'x'", "data.nodes.item.columns.x.column=NAME")
    refused(tmp_path, {"x": "numeric"}, "sku,x\n0,1\n", "no column 'item_id'", "data.nodes.item.id_column=NAME")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    refused(tmp_path, {"x": {"kind": "vector", "table": "cut.npy"}}, None, "cut.npy: can't be read")
    np.save(tmp_path / "m.npy", np.zeros((2, 2)))
    refused(tmp_path, {"x": {"kind": "categories", "table": "m.npy"}}, None, "an array can't be categories")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"tag": {"table": "t", "columns": {"x": "numeric"}}}, "no relation has nodes of this type"),
        ({"item": {"columns": {"x": "numeric"}}}, "columns.x: there is no table"),
        ({"item": {"table": "t", "columns": {"x": "number"}}}, "'numeric', 'category'"),
        ({"item": {"table": "t", "columns": {"x": {"kind": "numeric", "reduce": 3}}}}, "reduce is for vector"),
        ({"item": {"table": "t", "columns": {"x": {"kind": "numeric", "scale": "l2"}}}}, "scale=l2 is for vectors"),
        ({"item": {"table": "t", "columns": {"known": "numeric"}}}, "two columns are called known"),
        ({"item": {"table": "t", "columns": {"../x": "numeric"}}}, "can't name a column"),
    ],
)
def test_declarations_that_make_no_sense(nodes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        DataConfig.model_validate({"interactions": "t.csv", "nodes": nodes})


def test_short_forms_are_columns_too(tmp_path: Path) -> None:
    table = "item_id,year,maker\n0,1990,ann\n1,2000,bo\n2,1990,bo\n3,2010,ann\n"
    short = {"path": "items.csv", "id_column": "item_id", "columns": ["year"]}
    both = columns_of(tmp_path, {"maker": "category"}, table, item_features=short)
    long = columns_of(tmp_path, {"maker": "category", "year": "numeric"}, table)
    assert both.layout == long.layout
    assert both.values.tobytes() == long.values.tobytes()
