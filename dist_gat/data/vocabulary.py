"""External IDs to indices and back. A vocabulary is a sorted Series of distinct IDs; the position is the index."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.data.bad_rows import shown

MAX_CANDIDATES = 10_000  # IDs compared with a mistyped one
WHOLE = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
MAX_SPARSITY = 8  # a table of all numbers from the first to the last ID has at most so many entries per ID


def build_vocabulary(ids: Iterable[pl.Series]) -> pl.Series:
    """The distinct IDs of columns of one type, sorted, so that the order of rows doesn't matter."""
    return pl.concat(list(ids)).unique().sort()


def encode(ids: pl.Series, vocabulary: pl.Series) -> np.ndarray:
    """Indices of IDs in a vocabulary of the same type: int64 [len(ids)], -1 where unknown."""
    assert ids.dtype == vocabulary.dtype, f"{ids.dtype} IDs, {vocabulary.dtype} vocabulary"
    if is_dense(vocabulary) and not ids.null_count():
        return _look_up(ids.to_numpy(), vocabulary.to_numpy())
    indices = pl.int_range(len(vocabulary), dtype=pl.Int64, eager=True)
    return ids.replace_strict(vocabulary, indices, default=-1, return_dtype=pl.Int64).to_numpy(writable=True)


def is_dense(vocabulary: pl.Series) -> bool:
    """Whether IDs are whole numbers so close to each other that a table of all numbers between them is small."""
    if vocabulary.dtype not in WHOLE or vocabulary.is_empty():
        return False
    return int(vocabulary[-1]) - int(vocabulary[0]) < MAX_SPARSITY * len(vocabulary)


def above(ids: np.ndarray, first: int) -> np.ndarray:
    """int64: `ids`, integers of any type, minus `first`."""
    if ids.dtype.kind == "u":
        return (ids - ids.dtype.type(first)).astype(np.int64)
    return ids.astype(np.int64) - first


def _look_up(ids: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """`encode` by a table of all numbers from the first to the last ID."""
    first, last = int(vocabulary[0]), int(vocabulary[-1])
    table = np.full(last - first + 1, -1)
    table[above(vocabulary, first)] = np.arange(len(vocabulary))
    known = (ids >= first) & (ids <= last)
    if known.all():
        return table[above(ids, first)]
    found = np.full(len(ids), -1)
    found[known] = table[above(ids[known], first)]
    return found


def parse_id(text: str, vocabulary: pl.Series) -> object:
    """The ID, in the vocabulary's type, that prints as `text`.

    An unknown one is a `DataError` that names close matches, or else the first few IDs.
    """
    texts = vocabulary.cast(pl.String)
    found = (texts == text).arg_true()
    if len(found):
        return vocabulary[int(found[0])]
    candidates = texts.filter(texts.str.starts_with(text[:1])).head(MAX_CANDIDATES).to_list()
    close = difflib.get_close_matches(text, candidates, n=3)
    near, first = (", ".join(map(shown, some)) for some in (close, texts.head(3)))
    hint = f"did you mean {near}?" if close else f"IDs look like {first}"
    raise DataError(f"unknown {vocabulary.name or 'ID'} {shown(text)} among {len(vocabulary)}; {hint}")
