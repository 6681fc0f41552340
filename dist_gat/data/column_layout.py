"""`Column`: where a column of nodes stands in the matrix of its type, and what is needed to read it.

The columns of a type are one float32 matrix, a row a node, so that they travel together. Numbers and vectors stand
there as they are, texts as the vectors that an encoder made of them, NaN where missing; categories are int32 codes
whose bits stand there, -1 where missing. So do the tokens of a text whose encoder may be trained, beside its vector,
-1 behind them. Categories with weights have these in a column behind their codes, float32, 0 where there is none. The
first column, `known`, is 1 for nodes that training meets, which have an ID row, and 0 for others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dist_gat.base.errors import StorageError

KNOWN, TOKENS, WEIGHTS = "known", "tokens", "weights"
KINDS = (KNOWN, "numeric", "category", "categories", "vector", "text", TOKENS, WEIGHTS)
# columns that no recipe declares, and no encoder of inputs reads
OUR_OWN = (KNOWN, TOKENS, WEIGHTS)
CHUNK = 1 << 14


@dataclass(frozen=True)
class Column:
    """width: float32 columns from `offset` on. num_values: nodes that have a value.

    mean, deviation: what was subtracted from each number, and what it was divided by; none where neither was. scale: of
    a vector, see `NodeColumnConfig`. num_categories: codes are below it. num_unknown: categories that no training node
    has or that are too rare, which count as missing. num_cut: nodes that had more categories than `width`.
    """

    name: str
    kind: str
    width: int
    num_values: int
    offset: int = 0
    scale: str = "none"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    num_categories: int = 0
    num_unknown: int = 0
    num_cut: int = 0

    @property
    def slice(self) -> slice:
        return slice(self.offset, self.offset + self.width)


Layout = tuple[Column, ...]


class TrainableText(NamedTuple):
    """A column of text whose encoder may be trained: its node type, its vectors, and its tokens beside them."""

    node_type: str
    vector: Column
    tokens: Column

    def tokens_of(self, rows_nW: np.ndarray) -> np.ndarray:
        """int32 [n, L]: -1 behind the tokens of each node, and where there is no text."""
        return np.ascontiguousarray(rows_nW[:, self.tokens.slice]).view(np.int32)

    def lengths_of(self, rows_nW: np.ndarray) -> np.ndarray:
        """int64 [n]: how many tokens each text has, 0 where there is none."""
        chunks = [rows_nW[start : start + CHUNK] for start in range(0, len(rows_nW), CHUNK)]
        return np.concatenate([np.zeros(0, np.int64), *((self.tokens_of(one) >= 0).sum(axis=1) for one in chunks)])


def trainable_text(layouts: Mapping[str, Layout]) -> TrainableText | None:
    """The only one, or the first of several; None where there is none."""
    for node_type, layout in layouts.items():
        by_name = {column.name: column for column in layout}
        for column in layout:
            if column.kind == TOKENS:
                return TrainableText(node_type, by_name[column.name.removesuffix(f".{TOKENS}")], column)
    return None


def laid_out(columns: Sequence[Column]) -> Layout:
    """The columns side by side."""
    found: list[Column] = []
    for column in columns:
        found.append(replace(column, offset=width_of(found)))
    return tuple(found)


def width_of(layout: Sequence[Column]) -> int:
    """Of the matrix."""
    return layout[-1].offset + layout[-1].width if layout else 0


def to_plain(layout: Layout) -> list[dict[str, Any]]:
    """What a manifest records; `read_layouts` reads it."""
    lists = ("mean", "deviation")
    return [asdict(column) | {name: list(getattr(column, name)) for name in lists} for column in layout]


def read_layouts(
    manifest: Mapping[str, Any], node_types: Sequence[str], file: Path, remedy: str
) -> dict[str, Layout]:  # fmt: skip
    """By node type, of the types that have columns. Raises `StorageError` where it is missing or invalid."""
    found: Any = manifest.get("columns")
    try:
        layouts = {kind: tuple(map(_column, columns)) for kind, columns in found.items()}
        fits = layouts.keys() <= set(node_types) and all(map(_is_sound, layouts.values()))
    except (TypeError, AttributeError, KeyError):
        fits, layouts = False, {}
    if not fits:
        raise StorageError(
            f"{file}: expected columns by node type, each with name, kind, offset and width; found {str(found)[:80]}; "
            f"{remedy}"
        )
    return layouts


def _column(found: Mapping[str, Any]) -> Column:
    lists = {name: tuple(float(value) for value in found[name]) for name in ("mean", "deviation")}
    numbers = {field.name: found[field.name] for field in fields(Column) if field.type == "int"}
    if not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise TypeError("a number is no count")
    return Column(**{**found, **lists})


def _is_sound(layout: Layout) -> bool:
    """Whether the columns stand side by side, the first of them `known`."""
    names = [column.name for column in layout]
    fits = bool(layout) and (layout[0].kind, layout[0].width) == (KNOWN, 1) and len(set(names)) == len(names)
    return fits and layout == laid_out(layout) and all(column.kind in KINDS and column.width for column in layout)
