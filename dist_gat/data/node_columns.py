"""What is known of the nodes of each type: columns read from tables and matrices, side by side in one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import scipy.sparse

from dist_gat.config.data_sections import DataConfig
from dist_gat.config.node_sections import ColumnSource
from dist_gat.data.column_layout import OUR_OWN, TOKENS, Layout, laid_out
from dist_gat.data.column_values import (
    ColumnValues,
    Reduction,
    category_values,
    fit_reduction,
    known_values,
    token_values,
    vector_values,
    weight_values,
)
from dist_gat.data.engine import Engine
from dist_gat.data.matrix_file import MatrixRows, read_matrix
from dist_gat.data.side_table import SideTable, Value, ValueKind, read_side_table
from dist_gat.data.vocabulary import Vocabulary
from dist_gat.text.encode import encode_texts
from dist_gat.text.model_files import find_model
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.tokens import token_rows

VALUE_KINDS: dict[str, ValueKind] = {
    "numeric": "number", "category": "category", "categories": "categories", "vector": "vector", "text": "text",
}  # fmt: skip


@dataclass(frozen=True)
class NodeColumns:
    """values: float32 [nodes, width], see `column_layout`. categories: names by code, of the columns that have some.
    reductions: of sparse matrices that became vectors, by column."""

    layout: Layout
    values: np.ndarray
    categories: dict[str, pl.Series]
    reductions: dict[str, Reduction]
    num_bad: int
    warnings: list[str]


class TypedNodes(Protocol):
    """The nodes of a type, see `Nodes`."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def index(self) -> np.ndarray: ...


def read_node_columns(
    engine: Engine, config: DataConfig, node_type: str, nodes: TypedNodes, known: np.ndarray,
    tables: Mapping[str, Any] | None = None,
) -> NodeColumns:  # fmt: skip
    """The columns of one type. known: bool [nodes], those that training meets. Raises `DataError`."""
    sources = config.node_columns[node_type]
    found: dict[str, ColumnValues] = {}
    num_bad, warnings = 0, list[str]()
    for source in sources:
        if source.is_matrix:
            matrix = read_matrix(engine, config, node_type, source, nodes.vocabulary, nodes.index, tables)
            found[source.name] = _of_matrix(source, matrix, known)
            num_bad, warnings = num_bad + matrix.num_bad, warnings + matrix.warnings
    for together in _by_table([source for source in sources if not source.is_matrix]):
        values = [
            Value(one.column, VALUE_KINDS[one.config.kind], one.keys[2], one.config.separator, one.config.missing)
            for one in together
        ]
        first = together[0]
        table = SideTable(node_type, first.files, first.id_column, values, first.keys[0], first.keys[1])
        side = read_side_table(engine, config, table, nodes.vocabulary, nodes.index, tables)
        order = np.argsort(side.nodes, kind="stable")
        for number, source in enumerate(together):
            own = side.frame[f"value {number}"].gather(order)
            if source.config.kind == "text":
                # NaN where there is no text
                rows = encode_texts(own, source.config.text_encoder, Path(config.vectors), engine.progress)
                found[source.name] = vector_values(
                    source.name, "text", side.nodes[order], rows, known, source.config.scale
                )
                if source.config.trainable:
                    found[_tokens(source)] = _tokens_of(source, side.nodes[order], own, len(known))
            else:
                found[source.name] = _of_table(source, side.nodes[order], own, known)
        num_bad, warnings = num_bad + side.num_bad, warnings + side.warnings
    # numbers stand together, so that the model reads them as one matrix
    numeric = [source.name for source in sources if source.config.kind == "numeric"]
    names = [*numeric, *(source.name for source in sources if source.name not in numeric)]
    names += [_tokens(source) for source in sources if source.config.trainable]
    ordered = [known_values(known)]
    for name in names:
        ordered.append(found[name])
        if found[name].weights is not None:
            ordered.append(weight_values(found[name]))
    return NodeColumns(
        laid_out([one.column for one in ordered]),
        np.concatenate([one.values for one in ordered], axis=1),
        {one.column.name: one.categories for one in ordered if one.categories is not None},
        {one.column.name: one.reduction for one in ordered if one.reduction is not None},
        num_bad,
        list(dict.fromkeys([*warnings, *_remarks(node_type, ordered)])),
    )


def _by_table(sources: Sequence[ColumnSource]) -> list[list[ColumnSource]]:
    """Those of one table together, which is read once."""
    found: dict[tuple[str, str, str], list[ColumnSource]] = {}
    for source in sources:
        found.setdefault((str(source.files), source.id_column, source.keys[0]), []).append(source)
    return list(found.values())


def _tokens(source: ColumnSource) -> str:
    """The name of the column of tokens; that of no other column has a point."""
    return f"{source.name}.{TOKENS}"


def _tokens_of(source: ColumnSource, nodes: np.ndarray, texts: pl.Series, num_nodes: int) -> ColumnValues:
    config = source.config.text_encoder
    encoder = TextEncoder(find_model(config.encoder) or config.encoder, config)
    return token_values(_tokens(source), nodes, token_rows(texts.cast(pl.String), encoder), num_nodes)


def _of_table(source: ColumnSource, nodes: np.ndarray, values: pl.Series, known: np.ndarray) -> ColumnValues:
    config, name = source.config, source.name
    nodes, values = nodes[values.is_not_null().to_numpy()], values.drop_nulls()
    if config.kind == "numeric":
        rows = values.to_numpy().astype(np.float64)[:, None]
        return vector_values(name, config.kind, nodes, rows, known, config.scale)
    if config.kind == "vector":
        length = len(values[0]) if len(values) else 1
        rows = values.explode().to_numpy().reshape(-1, length) if len(values) else np.zeros((0, length))
        return vector_values(name, config.kind, nodes, rows.astype(np.float32), known, config.scale)
    if config.kind == "categories":
        nodes = np.repeat(nodes, values.list.len().to_numpy())
        values = values.filter(values.list.len() > 0).explode()
        once = np.ones(len(nodes)) if config.weights == "tf_idf" else None
        return category_values(name, config.kind, nodes, values, known, config.max_categories, config.max_length, once)
    return category_values(name, config.kind, nodes, values, known, config.max_categories)


def _of_matrix(source: ColumnSource, rows: MatrixRows, known: np.ndarray) -> ColumnValues:
    config, name = source.config, source.name
    if config.kind == "vector":
        if not scipy.sparse.issparse(rows.matrix):
            return vector_values(name, config.kind, rows.nodes, rows.matrix, known, config.scale)
        assert config.reduce is not None, "checked with the file"
        reduction = fit_reduction(rows.matrix[known[rows.nodes]], config.reduce)
        vectors = reduction.of(rows.matrix)
        found = vector_values(name, config.kind, rows.nodes, vectors, known, config.scale)
        return found._replace(reduction=reduction)
    row = np.repeat(np.arange(len(rows.nodes)), np.diff(rows.matrix.indptr))
    order = np.lexsort((rows.matrix.indices, -rows.matrix.data.astype(np.float64), row))
    texts = pl.Series(rows.matrix.indices[order]).cast(pl.String)
    counts = rows.matrix.data[order].astype(np.float64) if config.weights == "tf_idf" else None
    return category_values(
        name, config.kind, rows.nodes[row[order]], texts, known, config.max_categories, config.max_length, counts
    )


def _remarks(node_type: str, found: Sequence[ColumnValues]) -> list[str]:
    """What became of values that the model can't tell apart."""
    told = []
    for column in (one.column for one in found if one.column.kind not in OUR_OWN):
        what = f"{column.name} of {node_type}"
        if not column.num_values:
            told.append(f"{what}: no node has a value that training knows; leave the column out")
        if column.num_unknown:
            told.append(
                f"{what}: {column.num_unknown:,} categories are of no training node, or too rare; they count as missing"
            )
        if column.num_cut:
            told.append(f"{what}: {column.num_cut:,} nodes have more categories; the first {column.width} count")
    return told
