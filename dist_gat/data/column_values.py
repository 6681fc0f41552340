"""The values of one column of nodes as float32 columns: standardised numbers and vectors, codes of categories.

What is measured (mean, deviation, frequency) is measured on the nodes that training meets.

Shape legend: n nodes of a type, m values of them, D length of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import scipy.sparse

from dist_gat.data.column_layout import KNOWN, TOKENS, WEIGHTS, Column, Layout, width_of

Scale = Literal["standardize", "l2", "none"]
MISSING = -1


class Reduction(NamedTuple):
    """Truncated SVD of the tf-idf of a sparse matrix, as fitted on training nodes. A row that comes later becomes what
    it would have become among the others, to the bit.

    idf: float64 [words]. directions: float64 [size, words].
    """

    idf: np.ndarray
    directions: np.ndarray

    def tf_idf(self, weights: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        """float64 [m, words]: (1 + log w) idf, rows of length 1 or 0. weights: above 0."""
        from sklearn.preprocessing import normalize

        found = scipy.sparse.csr_array(weights, dtype=np.float64, copy=True)
        found.eliminate_zeros()
        found.data = (1.0 + np.log(found.data)) * self.idf[found.indices]
        return scipy.sparse.csr_array(normalize(found, copy=False))

    def of(self, weights: scipy.sparse.csr_array) -> np.ndarray:
        """float32 [m, size]"""
        found: np.ndarray = (self.tf_idf(weights) @ self.directions.T).astype(np.float32)
        return found


class ColumnValues(NamedTuple):
    """values: float32 [n, width]. categories: their names by code, where there are any. reduction: what made vectors of
    a sparse matrix, or weights of categories: float32 [n, width], 0 behind the last."""

    column: Column
    values: np.ndarray
    categories: pl.Series | None = None
    reduction: Reduction | None = None
    weights: np.ndarray | None = None


def missing_row(layout: Layout) -> np.ndarray:
    """float32 [W]: of a node that training never met, and of which nothing is known."""
    row_W = np.full(width_of(layout), np.nan, np.float32)
    for column in layout:
        if column.kind in (KNOWN, WEIGHTS):
            row_W[column.slice] = 0
        elif column.kind in ("category", "categories", TOKENS):
            row_W[column.slice] = np.full(column.width, MISSING, np.int32).view(np.float32)
    return row_W


def known_values(known: np.ndarray) -> ColumnValues:
    """known: bool [n], whether training meets a node."""
    return ColumnValues(Column(KNOWN, KNOWN, 1, int(known.sum())), known.astype(np.float32)[:, None])


def vector_values(
    name: str, kind: str, nodes: np.ndarray, rows: np.ndarray, known: np.ndarray, scale: Scale
) -> ColumnValues:
    """The vectors float32 [m, D], or numbers [m, 1], of int64 [m] nodes; NaN for the others.

    This is also how the vectors of a pre-trained encoder enter.
    """
    values = np.full((len(known), rows.shape[1]), np.nan, np.float32)
    mean: np.ndarray = np.zeros(rows.shape[1])
    deviation: np.ndarray = np.ones(rows.shape[1])
    measured = known[nodes] & ~np.isnan(rows).any(axis=1)
    if scale == "standardize" and measured.any():
        numbers = rows[measured].astype(np.float64)
        mean, deviation = numbers.mean(axis=0), numbers.std(axis=0)
        deviation[deviation == 0] = 1.0
    moments = (tuple(mean.tolist()), tuple(deviation.tolist())) if scale == "standardize" else ((), ())
    values[nodes] = scaled(rows, scale, *moments)
    num_values = int((~np.isnan(values)).any(axis=1).sum())
    return ColumnValues(Column(name, kind, values.shape[1], num_values, 0, scale, *moments), values)


def scaled(rows: np.ndarray, scale: str, mean: Sequence[float], deviation: Sequence[float]) -> np.ndarray:
    """Vectors or numbers [m, D] as they are stored. mean, deviation: of each of D, where the scale is standardize."""
    if scale == "standardize":
        found: np.ndarray = (rows - np.array(mean)) / np.array(deviation)
        return found
    if scale == "l2":
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norm == 0, 1, norm)
    return rows


def category_values(
    name: str, kind: str, nodes: np.ndarray, texts: pl.Series, known: np.ndarray, most: int, max_length: int = 1,
    counts: np.ndarray | None = None,
) -> ColumnValues:  # fmt: skip
    """The codes of the categories of nodes: of int64 [m] nodes, ascending, one text each, in order of importance.

    most: categories that are kept, the most frequent ones among known nodes. max_length: those of a node. counts:
    float64 [m], above 0, how often a node has each: they come in the order of their tf-idf then, and have it as weight.
    """
    frame = pl.DataFrame({"node": nodes, "text": texts.cast(pl.String)})
    if counts is None:
        frame = frame.unique(maintain_order=True)
    else:
        frame = (
            frame.with_columns(count=counts).group_by("node", "text", maintain_order=True).agg(pl.col("count").sum())
        )
    often = (
        frame.filter(pl.Series(known[frame["node"].to_numpy()]))
        .group_by("text").len().sort(["len", "text"], descending=[True, False]).head(most)
    )  # fmt: skip
    names = often["text"]
    num_unknown = frame["text"].n_unique() - len(names)
    frame, reduction = coded(frame, names), None
    if counts is not None:
        reduction = idf_of(often["len"].to_numpy(), int(known.sum()))
        frame = weighted(frame, reduction, max_length)
    num_cut = frame.filter(pl.col("place") == max_length).height
    frame = frame.filter(pl.col("place") < max_length)
    width = int(frame["place"].max() or 0) + 1  # type: ignore[arg-type]
    values = np.full((len(known), width), MISSING, np.int32)
    values[frame["node"].to_numpy(), frame["place"].to_numpy()] = frame["code"].to_numpy()
    column = Column(
        name, kind, width, int((values[:, 0] >= 0).sum()), num_categories=len(names), num_unknown=num_unknown,
        num_cut=num_cut,
    )  # fmt: skip
    weights = None
    if counts is not None:
        weights = np.zeros((len(known), width), np.float32)
        weights[frame["node"].to_numpy(), frame["place"].to_numpy()] = frame["weight"].to_numpy()
    return ColumnValues(column, values.view(np.float32), names, reduction, weights)


def weight_values(column: ColumnValues) -> ColumnValues:
    """The column of the weights of one that has some."""
    assert column.weights is not None, "it has some"
    own = column.column
    return ColumnValues(Column(f"{own.name}.{WEIGHTS}", WEIGHTS, own.width, own.num_values), column.weights)


def idf_of(often: np.ndarray, num_nodes: int) -> Reduction:
    """Weights alone: log((1 + n) / (1 + f)) + 1 of the frequencies f of categories among n nodes, int64 [C]."""
    return Reduction(np.log((1 + num_nodes) / (1 + often)) + 1, np.zeros((0, len(often))))


def weighted(frame: pl.DataFrame, idf: Reduction, longest: int) -> pl.DataFrame:
    """The heaviest categories of nodes, with `weight`, float32: (1 + log count) idf, whose squares are 1 together.

    frame: node, code, count. Of equal weights the smaller code comes first.
    """
    tf_idf = (1 + np.log(frame["count"].to_numpy())) * idf.idf[frame["code"].to_numpy()]
    frame = frame.with_columns(tf_idf=tf_idf).sort(["node", "tf_idf", "code"], descending=[False, True, False])
    frame = frame.with_columns(place=pl.int_range(pl.len()).over("node"))
    kept = pl.when(pl.col("place") < longest).then(pl.col("tf_idf"))
    length = kept.pow(2).sum().sqrt().over("node")
    return frame.with_columns(weight=(pl.col("tf_idf") / length).cast(pl.Float32))


def token_values(name: str, nodes: np.ndarray, rows: np.ndarray, num_nodes: int) -> ColumnValues:
    """The tokens int32 [m, L] of the texts of int64 [m] nodes, see `token_rows`."""
    values = np.full((num_nodes, rows.shape[1]), MISSING, np.int32)
    values[nodes] = rows
    return ColumnValues(Column(name, TOKENS, rows.shape[1], int((values[:, 0] >= 0).sum())), values.view(np.float32))


def coded(frame: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """The rows of known categories, with columns code, by the place in `names`, and place, from 0 for each node.

    frame: columns node and text, distinct, in order of importance. names: distinct texts.
    """
    codes = pl.int_range(len(names), dtype=pl.Int32, eager=True)
    frame = frame.with_columns(code=frame["text"].replace_strict(names, codes, default=MISSING, return_dtype=pl.Int32))
    return frame.filter(pl.col("code") >= 0).with_columns(place=pl.int_range(pl.len()).over("node"))


def fit_reduction(weights: scipy.sparse.csr_array, size: int) -> Reduction:
    """weights: [m, words], of the nodes to fit. The same on every run, on one thread of BLAS."""
    # scikit-learn takes seconds to import
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from threadpoolctl import threadpool_limits

    every = Reduction(TfidfTransformer().fit(weights).idf_.astype(np.float64), np.zeros((0, weights.shape[1])))
    with threadpool_limits(1):
        directions = TruncatedSVD(size, random_state=0).fit(every.tf_idf(weights)).components_
    return every._replace(directions=directions.astype(np.float64))
