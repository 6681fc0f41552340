"""`NewColumns`: what is known of a node that training never saw, as the model reads it.

Values come as in JSON: a number, a text or number for a category, a list of these for categories, a list of numbers for
a vector, a text for its encoder. They become one row as it is stored, see `dist_gat.data.column_layout`, scaled and
coded as training's were.

Shape legend: W width of the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from dist_gat.base.errors import DataError
from dist_gat.config.node_sections import NodeColumnConfig
from dist_gat.data.column_layout import OUR_OWN, WEIGHTS, Column, Layout
from dist_gat.data.column_values import MISSING, Reduction, coded, missing_row, scaled, weighted
from dist_gat.data.text_table import NUM_EXAMPLES, shown
from dist_gat.data.values import MAX_ID_BYTES
from dist_gat.data.vocabulary import EXACT
from dist_gat.serve.saved_model import SavedModel
from dist_gat.serve.trained_encoder import trained_column, trained_encoder
from dist_gat.text.model_files import find_model
from dist_gat.text.text_encoder import TextEncoder

BLANKS = " \t\n\r\xa0"  # see `dist_gat.data.values.BLANKS`


def no_reduction(column: str, size: int) -> Reduction:
    raise AssertionError(f"{column} reduces nothing")


@dataclass(frozen=True)
class NewColumns:
    """The columns of one node type. layout: of these; empty where the model reads none. configs: of each, by name.
    categories: names by code.

    notes: what became of values that the model doesn't know, for the user. encoders: of texts, by column, once opened.
    trained: opens the encoder that was trained, by its column. reduction: opens what reduces the sparse matrix of a
    column, or weighs its categories, of a name and size; reductions: once opened.
    """

    node_type: str
    layout: Layout
    configs: Mapping[str, NodeColumnConfig]
    categories: Mapping[str, pl.Series]
    notes: list[str] = field(default_factory=list)
    encoders: dict[str, TextEncoder] = field(default_factory=dict)
    trained: Mapping[str, Callable[[], TextEncoder]] = field(default_factory=dict)
    reduction: Callable[[str, int], Reduction] = no_reduction
    reductions: dict[str, Reduction] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.layout if column.kind not in OUR_OWN]

    def row(self, given: Any, where: str) -> np.ndarray | None:
        """float32 [W]: of a node with these values by name; what isn't there is missing. None: nothing is known.

        Raises `DataError` for what is no value of its column.
        """
        if given is None:
            return None
        if not isinstance(given, Mapping):
            raise DataError(f"{where}: columns={str(given)[:80]}: expected values by name, {self._expected()}")
        if unknown := [str(name) for name in given if name not in self.names]:
            raise DataError(
                f"{where}: the model reads no column {shown(unknown[0])} of {self.node_type}; {self._expected()}"
            )
        missing_W, row_W = self.missing(), self.missing()
        for column in self.layout:
            if column.kind in OUR_OWN:
                continue
            value = _value(given.get(column.name), self.configs[column.name].missing)
            if value is None:
                continue
            stored = self._stored(column, value, f"{where}: columns.{column.name}={str(value)[:80]}")
            row_W[column.offset : column.offset + len(stored)] = stored
        return None if np.array_equal(row_W.view(np.int32), missing_W.view(np.int32)) else row_W

    def missing(self) -> np.ndarray:
        """float32 [W]: of a node of which nothing is known."""
        return missing_row(self.layout)

    def _expected(self) -> str:
        return f"expected {', '.join(self.names)}" if self.names else "leave `columns` out"

    def _stored(self, column: Column, value: Any, where: str) -> np.ndarray:
        """float32 [width], and the weights of categories behind them."""
        if column.kind in ("category", "categories"):
            if isinstance(value, Mapping) and self._weights_of(column) is not None:
                counts = [_positive(count, where) for count in value.values()]
                return self._coded(column, [_category(one, where) for one in value], where, counts)
            several = value if isinstance(value, list) and column.kind == "categories" else [value]
            if isinstance(value, str) and column.kind == "categories":
                parts = value.strip(BLANKS).split(self.configs[column.name].separator)
                several = [part for part in parts if part.strip(BLANKS)]
            return self._coded(column, [_category(one, where) for one in several if one is not None], where)
        if column.kind == "text" and isinstance(value, str):
            rows = self._encoded(column, value, where)
            return scaled(rows, column.scale, column.mean, column.deviation)[0].astype(np.float32)
        if column.kind == "numeric":
            return scaled(np.array([[_number(value, where)]]), column.scale, column.mean, column.deviation)[0]
        if self.configs[column.name].reduce is not None:
            rows = self._reduced(column, value, where)
            return scaled(rows, column.scale, column.mean, column.deviation)[0].astype(np.float32)
        if column.name in self.trained:
            raise DataError(f"{where}: expected text, because the encoder of this column was trained")
        if not isinstance(value, list) or len(value) != column.width:
            found = f"{len(value)} of them" if isinstance(value, list) else "none"
            text = "text, or " if column.kind == "text" else ""
            raise DataError(f"{where}: expected {text}a list of {column.width} numbers; found {found}")
        rows = np.array([[_number(one, where) for one in value]], np.float32)
        return scaled(rows, column.scale, column.mean, column.deviation)[0].astype(np.float32)

    def _encoded(self, column: Column, text: str, where: str) -> np.ndarray:
        """float32 [1, width]. The encoder is opened for the first text."""
        config = self.configs[column.name].text_encoder
        if column.name not in self.encoders:
            as_it_is = partial(TextEncoder, find_model(config.encoder) or config.encoder, config)
            self.encoders[column.name] = self.trained.get(column.name, as_it_is)()
        ((_, rows),) = self.encoders[column.name].encode([text])
        if rows.shape[1] != column.width:
            raise DataError(
                f"{where}: encoder={config.encoder} makes vectors of {rows.shape[1]} numbers, and training had those "
                f"of {column.width}; put the same model there"
            )
        # as the cache of `prepare` would have it, which what was trained never was in
        return rows if column.name in self.trained else rows.astype(config.store).astype(np.float32)

    def _reduced(self, column: Column, value: Any, where: str) -> np.ndarray:
        """float32 [1, width]: of a row of the sparse matrix, the columns that it has with their values."""
        reduction = self._opened(column, column.width)
        num_words = len(reduction.idf)
        expected = f'expected numbers above 0 by column of the matrix, from 0 to {num_words - 1:,}, as {{"17": 3}}'
        if not isinstance(value, Mapping):
            raise DataError(f"{where}: {expected}")
        words = [int(key) if str(key).isascii() and str(key).isdigit() else -1 for key in value]
        weights = [_positive(one, f"{where}: {expected}") for one in value.values()]
        if any(not 0 <= word < num_words for word in words):
            raise DataError(f"{where}: {expected}")
        order = np.argsort(words)
        shape = (1, num_words)
        row = csr_array((np.array(weights)[order], np.array(words, np.int64)[order], [0, len(words)]), shape)
        return reduction.of(row)

    def _weights_of(self, column: Column) -> Column | None:
        return next((one for one in self.layout if one.name == f"{column.name}.{WEIGHTS}"), None)

    def _coded(
        self, column: Column, texts: Sequence[str], where: str, counts: Sequence[float] | None = None
    ) -> np.ndarray:
        """counts: how often a node has each, where they have weights; None: as often as they are there."""
        names, of_weights = self.categories[column.name], self._weights_of(column)
        frame = pl.DataFrame({"node": np.zeros(len(texts), np.int64), "text": pl.Series(texts, dtype=pl.String)})
        if of_weights is None:
            frame = frame.unique(maintain_order=True)
        else:
            often = np.ones(len(texts)) if counts is None else np.array(counts)
            frame = (
                frame.with_columns(count=often).group_by("node", "text", maintain_order=True).agg(pl.col("count").sum())
            )
        found = coded(frame, names)
        if of_weights is not None:
            found = weighted(found, self._opened(column, 0), column.width)
        if unknown := frame.filter(~pl.col("text").is_in(names.implode()))["text"].to_list():
            examples = ", ".join(map(shown, unknown[:NUM_EXAMPLES]))
            self.notes.append(f"{where}: {examples} is no category that training knows, and counts as missing")
        if len(found) > column.width:
            self.notes.append(f"{where}: the first {column.width} categories count")
        codes = np.full(column.width, MISSING, np.int32)
        known = found["code"].to_numpy()[: column.width]
        codes[: len(known)] = known
        if of_weights is None:
            return codes.view(np.float32)
        weights = np.zeros(column.width, np.float32)
        weights[: len(known)] = found["weight"].to_numpy()[: column.width]
        return np.concatenate([codes.view(np.float32), weights])

    def _opened(self, column: Column, size: int) -> Reduction:
        if column.name not in self.reductions:
            self.reductions[column.name] = self.reduction(column.name, size)
        return self.reductions[column.name]


def open_columns(model: SavedModel, node_type: str) -> NewColumns:
    """Of a model that has answers for new nodes. Raises `StorageError` for a damaged one."""
    model.check_new_nodes()
    layout = model.layouts.get(node_type, ())
    declared = model.config.data.node_columns.get(node_type, [])
    with_names = [column.name for column in layout if column.kind in ("category", "categories")]
    configs = {source.name: source.config for source in declared}
    trained = trained_column(model, node_type)
    openers = {} if trained is None else {trained: partial(trained_encoder, model, configs[trained].text_encoder)}
    categories = {name: model.categories(node_type, name) for name in with_names}
    reduction = partial(model.reduction, node_type)
    return NewColumns(node_type, layout, configs, categories, trained=openers, reduction=reduction)


def tell(notes: Sequence[str], progress: Callable[[str], None]) -> None:
    """A few of them, and how many others there are."""
    for note in notes[:NUM_EXAMPLES]:
        progress(note)
    if len(notes) > NUM_EXAMPLES:
        progress(f"and {len(notes) - NUM_EXAMPLES:,} others like these")


def _value(value: Any, missing: Sequence[str]) -> Any:
    """None where a text stands for no value, as in a table."""
    return None if isinstance(value, str) and value.strip(BLANKS) in ("", *missing) else value


def _number(value: Any, where: str) -> float:
    """Raises `DataError` unless it is finite as float32."""
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(number)):
            raise DataError(f"{where}: expected finite numbers, or null where one is not known")
    return number


def _positive(value: Any, where: str) -> float:
    """Raises `DataError` unless it is a finite number above 0."""
    if (number := _number(value, where)) <= 0:
        raise DataError(f"{where}: expected numbers above 0")
    return number


def _category(value: Any, where: str) -> str:
    """A category as text, that of a whole number without its point, as `prepare` reads it from a table."""
    text = value.strip(BLANKS) if isinstance(value, str) else ""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int):
        text = str(value)
    elif isinstance(value, float) and math.isfinite(value):
        text = str(int(value)) if value.is_integer() and abs(value) < EXACT else str(value)
    if not text or len(text.encode()) > MAX_ID_BYTES:
        raise DataError(f"{where}: expected text of at most {MAX_ID_BYTES} bytes or finite numbers, or null")
    return text
