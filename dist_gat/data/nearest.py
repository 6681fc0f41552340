"""Edges from each node to the k nodes whose columns are most similar: a relation made from what is known of nodes.

Each column is a row of length 1 for a node, or of zeros where it has no value: a vector divided by its norm, or the
tf-idf of categories, whose frequencies are those of nodes that training meets. The similarity of two nodes is the
cosine of these rows side by side: with one column its cosine, with more, where both have all, the mean of the cosines.
Neighbours are exact: those of the highest similarity above 0, of equal ones those of the smallest index, which is the
smallest ID. Nodes without any value have none.

Blocks of similarities are matrix products in float32, whose last digits depend on threads and blocks. They only leave
out what is too far away beyond any error; the others are computed again in one order, so that edges don't depend on it.

Shape legend: n nodes, D numbers of their vectors, B and C rows and columns of a block, p pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dist_gat.base.errors import DataError
from dist_gat.base.plural import plural
from dist_gat.config.data_sections import NearestConfig
from dist_gat.data.column_layout import KNOWN, Column, Layout
from dist_gat.data.distinct_pairs import Repeats
from dist_gat.data.edge_file import Columns, write_edges
from dist_gat.data.engine import Engine
from dist_gat.data.node_columns import NodeColumns
from dist_gat.data.relations import Edges

BLOCK = (256, 1 << 14)  # 16 MiB of float32; where all nodes are alike, 20 times as much beside it
PAIRS_AT_ONCE = 1 << 14  # whose rows are gathered
TYPES = {"source": "uint32", "target": "uint32", "weight": "float32"}


class Rows(NamedTuple):
    """What is known of nodes, in rows of length 1 or 0. dense: float32 [n, D]. sparse: float64 [n, categories]."""

    dense: np.ndarray
    sparse: scipy.sparse.csr_array


class Pairs(NamedTuple):
    """node, neighbour: int64 [p]. similarity: float32 [p]."""

    node: np.ndarray
    neighbour: np.ndarray
    similarity: np.ndarray


def nearest_edges(engine: Engine, name: str, kind: str, config: NearestConfig, columns: NodeColumns) -> Edges:
    """The relation `name` between nodes of a type, with similarities as weights; sources attend to targets.

    Takes the memory of the columns again, and some blocks. Raises `DataError` where there are too few nodes.
    """
    rows = fit_unit_rows(columns.layout, columns.values, config.columns).of(columns.values)
    setting, num_known = f"data.relations.{name}.nearest", int(has_row(rows).sum())
    if config.k >= num_known:
        raise DataError(
            f"{setting}.k={config.k}: {num_known:,} {plural(kind)} have values in {', '.join(config.columns)}; "
            f"expected fewer neighbours than these; lower k, or name other columns"
        )

    def chunks() -> Iterator[Columns]:
        for stop, found in nearest_pairs(rows, config.k):
            engine.progress(f"finding the nearest {plural(kind)} of {name}: {stop:,} of {len(rows.dense):,}")
            order = np.lexsort((found.neighbour, found.node))
            yield {key: values[order] for key, values in zip(TYPES, found, strict=True)}

    file = write_edges(engine.work / f"relation-{name}-nearest", TYPES, chunks())
    if not file.count:
        raise DataError(
            f"{setting}: no two {plural(kind)} have a similarity above 0 in {', '.join(config.columns)}; name other "
            "columns"
        )
    return Edges(kind, kind, (), file, Repeats({}))


@dataclass(frozen=True)
class UnitRows:
    """What turns columns into rows of length 1. columns: of kinds vector, text, category and categories. tf_idf: of
    those of categories, by name; fitted on the nodes that training meets."""

    columns: Sequence[Column]
    tf_idf: Mapping[str, Any]

    def of(self, values: np.ndarray) -> Rows:
        """Of nodes with these columns, float32 [n, width], side by side. A row depends on no other."""
        dense = [np.zeros((len(values), 0), np.float32)]
        sparse = [scipy.sparse.csr_array((len(values), 0), dtype=np.float64)]
        num_values = np.zeros(len(values))
        for column in self.columns:
            own = values[:, column.slice]
            if column.name in self.tf_idf:
                sparse.append(scipy.sparse.csr_array(self.tf_idf[column.name].transform(_counts(own, column))))
                num_values += np.diff(sparse[-1].indptr) > 0
            else:
                dense.append(_unit_vectors(own))
                num_values += dense[-1].any(axis=1)
        share = 1 / np.sqrt(np.maximum(num_values, 1))
        # so that the columns side by side have length 1 too
        together = np.concatenate(dense, axis=1)
        together *= share[:, None].astype(np.float32)
        scaled = scipy.sparse.diags_array(share) @ scipy.sparse.hstack(sparse, "csr")
        return Rows(together, scipy.sparse.csr_array(scaled))


def fit_unit_rows(layout: Layout, values: np.ndarray, names: Sequence[str]) -> UnitRows:
    """Of some columns by name. values: float32 [n, width], of all nodes of the type."""
    # scikit-learn takes seconds to import
    from sklearn.feature_extraction.text import TfidfTransformer

    by_name = {column.name: column for column in layout}
    known = values[:, by_name[KNOWN].slice][:, 0] > 0
    columns = [by_name[name] for name in names]
    tf_idf = {
        column.name: TfidfTransformer().fit(_counts(values[:, column.slice], column)[known])
        for column in columns
        if column.kind in ("category", "categories")
    }
    return UnitRows(columns, tf_idf)


def _unit_vectors(values: np.ndarray) -> np.ndarray:
    """float32 [n, D]: divided by their norms; zeros where missing."""
    found = np.nan_to_num(values, nan=0.0)
    norm = np.sqrt(np.square(found, dtype=np.float64).sum(axis=1, keepdims=True))
    found /= np.where(norm == 0, 1, norm).astype(np.float32)
    return found


def _counts(values: np.ndarray, column: Column) -> scipy.sparse.csr_array:
    """float64 [n, categories]: 1 for each that a node has."""
    codes = np.ascontiguousarray(values).view(np.int32)
    node, place = np.nonzero(codes >= 0)
    shape = (len(codes), max(column.num_categories, 1))
    return scipy.sparse.csr_array((np.ones(len(node)), (node, codes[node, place])), shape)


def has_row(rows: Rows) -> np.ndarray:
    """bool [n]: whether a node has any value."""
    return rows.dense.any(axis=1) | (np.diff(rows.sparse.indptr) > 0)


def nearest_pairs(
    rows: Rows, k: int, block: tuple[int, int] = BLOCK, of: Rows | None = None
) -> Iterator[tuple[int, Pairs]]:  # fmt: skip
    """The pairs of at most `k` each, by runs of nodes, with the end of each run. of: those of other nodes, which are
    not among `rows`; None: of these themselves.

    They come by node, similarity descending, and neighbour, and do not depend on `block`, B and C.
    """
    asking, (num_nodes, width) = of or rows, rows.dense.shape
    # of the products, of what was rounded before, and of the similarity after it; twice, since two are compared.
    # Without vectors nothing is uncertain
    slack = np.float32((width + 4) * 2.0**-23 if width else 0)
    runs = [slice(first, min(first + block[1], num_nodes)) for first in range(0, num_nodes, block[1])]
    of_runs = [scipy.sparse.csr_array(rows.sparse[others].T) for others in runs]
    for start in range(0, len(asking.dense), block[0]):
        own = slice(start, min(start + block[0], len(asking.dense)))
        found = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        least = np.zeros(own.stop - start, np.float32)  # of the k-th neighbour so far: later ones must be nearer
        for others, categories in zip(runs, of_runs, strict=True):
            first = others.start
            common = (asking.sparse[own] @ categories).toarray() if rows.sparse.nnz else None
            similar = asking.dense[own] @ rows.dense[others].T
            if common is not None:
                similar += common
            if of is None:
                itself = np.arange(max(start, first), min(own.stop, others.stop))
                similar[itself - start, itself - first] = -np.inf
            if first == 0 and similar.shape[1] > k:
                kth = np.partition(similar, -k, axis=1)[:, -k]
                least = np.maximum(least, np.nextafter(kth, np.float32(-1)))  # its equals may have smaller indices
            row, column = np.nonzero(similar > (least - slack)[:, None])
            exact = _products(asking.dense, row + start, rows.dense, column + first)
            if common is not None:
                exact += common[row, column]
            fresh = Pairs(row + start, column + first, exact.astype(np.float32))
            found = _nearest_of([found, fresh], k)
            of_row = np.bincount(found.node - start, minlength=len(least))
            last = np.cumsum(of_row)[of_row == k] - 1
            least[of_row == k] = found.similarity[last]
        yield own.stop, found


def _products(of: np.ndarray, left: np.ndarray, rows: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float64 [p]: of pairs of rows, each added up in the same order wherever it stands."""
    found = np.zeros(len(left))
    for start in range(0, len(left), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        found[some] = np.multiply(of[left[some]], rows[right[some]], dtype=np.float64).sum(axis=1)
    return found


def _nearest_of(several: Sequence[Pairs], k: int) -> Pairs:
    """The first `k` of each node, of similarities above 0."""
    node, neighbour, similarity = (np.concatenate(values) for values in zip(*several, strict=True))
    order = np.lexsort((neighbour, -similarity, node))
    order = order[similarity[order] > 0]
    sorted_node = node[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_node, sorted_node)
    order = order[place < k]
    return Pairs(node[order], neighbour[order], similarity[order])
