"""Matrices of nodes in files of numpy and scipy, whose rows have numbers instead of IDs. Nothing is unpickled.

Shape legend: R rows of the matrix, D its columns, m nodes that have a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.node_sections import ColumnSource
from dist_gat.data.data_file import DataFile, find_files
from dist_gat.data.engine import Engine
from dist_gat.data.side_table import SideTable, Value, read_side_table
from dist_gat.data.text_table import NUM_EXAMPLES
from dist_gat.data.vocabulary import Vocabulary

BLOCK_ROWS = 1 << 16


class MatrixRows:
    """nodes: int64 [m], ascending. matrix: its row of each, dense float32 or sparse [m, D]."""

    def __init__(self, nodes: np.ndarray, matrix: Any, num_bad: int, warnings: list[str]) -> None:
        self.nodes, self.matrix, self.num_bad, self.warnings = nodes, matrix, num_bad, warnings


def read_matrix(
    engine: Engine, config: DataConfig, node_type: str, source: ColumnSource, vocabulary: Vocabulary,
    index: np.ndarray, tables: Mapping[str, Any] | None,
) -> MatrixRows:  # fmt: skip
    """The rows of a matrix by node. index: int64, from the vocabulary to nodes. Raises `DataError`."""
    (file,) = _only(find_files(source.files, config.path, source.keys[0]), source)
    matrix = _open(file, source)
    nodes, numbers, warnings = _rows_of_nodes(engine, config, node_type, source, vocabulary, index, tables, matrix)
    order = np.argsort(nodes, kind="stable")
    nodes, numbers = nodes[order], numbers[order]
    size = int(index.max(initial=-1)) + 1
    if size and not len(nodes):
        raise DataError(
            f"{file.name}: no node of type {node_type} has a row in it: their IDs are no numbers below "
            f"{matrix.shape[0]}; name with {source.setting}.ids a table that has the IDs of its rows"
        )
    if len(nodes) < size:
        warnings = [*warnings, f"{size - len(nodes):,} of {size:,} {plural(node_type)} have no row in {file.name}"]
    if scipy.sparse.issparse(matrix):
        if not np.isfinite(matrix.data).all():
            rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[~np.isfinite(matrix.data)]
            raise _not_finite(file, np.unique(rows).tolist())
        return MatrixRows(nodes, matrix[numbers], 0, warnings)
    found = np.empty((len(nodes), matrix.shape[1]), np.float32)
    bad = np.zeros(len(nodes), bool)
    for start in range(0, len(nodes), BLOCK_ROWS):
        some = slice(start, start + BLOCK_ROWS)
        with np.errstate(over="ignore"):  # a number that float32 doesn't hold is not finite there
            found[some] = matrix[numbers[some]]
        bad[some] = ~np.isfinite(found[some]).all(axis=1)
    if bad.any() and not config.skip_bad_rows:
        raise _not_finite(file, np.sort(numbers[bad]).tolist())
    return MatrixRows(nodes[~bad], found[~bad], int(bad.sum()), warnings)


def _only(files: list[DataFile], source: ColumnSource) -> list[DataFile]:
    if len(files) != 1:
        raise DataError(f"{source.keys[0]}={source.files}: stands for {len(files)} files; expected one matrix")
    return files


def _not_finite(file: DataFile, rows: list[int]) -> DataError:
    some = ", ".join(f"row {row}" for row in rows[:NUM_EXAMPLES]) + (", ..." if len(rows) > NUM_EXAMPLES else "")
    return DataError(
        f"{file.name}: {len(rows)} rows with values that are not finite numbers ({some}; row 0 is the first); expected "
        "finite numbers that float32 holds; correct them, or drop and count such rows with data.skip_bad_rows=true "
        "(--skip-bad-rows)"
    )


def _open(file: DataFile, source: ColumnSource) -> Any:
    """A matrix [R, D] of numbers: an array, in the file where it is a local one, or a sparse one."""
    is_sparse = file.suffix == ".npz"
    try:
        if is_sparse:
            with closing(file.open()) as stream:
                matrix: Any = scipy.sparse.csr_array(scipy.sparse.load_npz(stream))
            matrix.sum_duplicates()
            matrix.check_format(full_check=True)
        elif file.is_local:
            matrix = np.load(file.name, mmap_mode="r", allow_pickle=False)
        else:
            with closing(file.open()) as stream:
                matrix = np.load(stream, allow_pickle=False)
    except Exception as err:  # numpy tokenises and evaluates the header, so there is no list of what it raises
        kind = "a sparse matrix as scipy.sparse.save_npz writes it" if is_sparse else "a matrix as numpy.save writes it"
        raise DataError(
            f"{file.name}: can't be read: {str(err)[:200]}; expected {kind}, without Python objects; write it again"
        ) from None
    kind = source.config.kind
    if is_sparse and kind == "vector" and source.config.reduce is None:
        raise DataError(
            f"{file.name}: a sparse matrix of {matrix.shape[1]:,} columns; set {source.setting}.reduce to the length "
            "of the vectors that it should become, for example 128, or take the kind categories"
        )
    if is_sparse and kind == "vector" and source.config.reduce >= min(matrix.shape):
        raise DataError(
            f"{file.name}: {source.setting}.reduce={source.config.reduce}: expected fewer than the rows and the "
            f"columns of the matrix, {matrix.shape[0]:,} and {matrix.shape[1]:,}"
        )
    if not is_sparse and (kind != "vector" or source.config.reduce is not None):
        raise DataError(
            f"{file.name}: an array can't be {kind}{' with reduce' if kind == 'vector' else ''}; expected a sparse "
            f"matrix in .npz; correct {source.setting}"
        )
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or not matrix.shape[1]:
        raise DataError(
            f"{file.name}: has the shape {list(matrix.shape)} and the type {matrix.dtype}; expected numbers in rows "
            "and columns, a row for each node"
        )
    return matrix


def _rows_of_nodes(
    engine: Engine, config: DataConfig, node_type: str, source: ColumnSource, vocabulary: Vocabulary,
    index: np.ndarray, tables: Mapping[str, Any] | None, matrix: Any,
) -> tuple[np.ndarray, np.ndarray, list[str]]:  # fmt: skip
    """Nodes, the number of the row of each, int64, and warnings."""
    if source.config.ids is not None:
        values = [Value("", "position", f"{source.setting}.ids")]
        table = SideTable(
            node_type, source.config.ids, source.id_column, values, f"{source.setting}.ids", source.keys[1]
        )
        found = read_side_table(engine, config, table, vocabulary, index, tables)
        if found.num_bad:
            raise DataError(
                f"{source.config.ids}: {found.num_bad:,} bad rows, without which the others don't say which row of "
                f"{source.files} is whose; correct them, also with data.skip_bad_rows=true"
            )
        if found.num_rows != matrix.shape[0]:
            raise DataError(
                f"{source.setting}.ids has {found.num_rows:,} rows, and the matrix {source.files} has "
                f"{matrix.shape[0]:,}; expected an ID for each row, in the same order"
            )
        return found.nodes, found.frame["value 0"].to_numpy().astype(np.int64), found.warnings
    numbers = np.full(len(index), -1)
    start = 0
    for ids in vocabulary.ids(engine):
        found_numbers = ids.cast(pl.String).cast(pl.Int64, strict=False).fill_null(-1)
        numbers[start : start + len(ids)] = found_numbers.to_numpy()
        start += len(ids)
    has_row = (numbers >= 0) & (numbers < matrix.shape[0]) & (index >= 0)
    return index[has_row], numbers[has_row], []
