"""`IdIndex`: external IDs of one node type, and the node of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.data.values import is_id_type
from dist_gat.data.vocabulary import parse_id
from dist_gat.serve.saved_model import SavedModel

# so many IDs are parsed by themselves: of one, casts of a column take longer than the search for another user
FEW = 64
LONGEST_NUMBER = 20  # of 64 bits, with its sign


@dataclass(frozen=True)
class IdIndex:
    """kind: of the nodes. external_ids: ascending. nodes: int64, of these."""

    kind: str
    external_ids: pl.Series
    nodes: np.ndarray

    def find(self, wanted: pl.Series, where: str) -> np.ndarray:
        """int64 [n]: nodes, -1 for an unknown ID. Raises `DataError` for a column that has no IDs."""
        dtype = self.external_ids.dtype
        if not (is_id_type(wanted.dtype) or wanted.dtype == pl.Null):
            raise DataError(f"{where}: {wanted.name} has the type {wanted.dtype}; expected IDs, numbers or text")
        ids = wanted.cast(dtype, strict=False)
        if wanted.dtype.is_float() and dtype.is_integer():
            # a cast would cut off what stands behind the point
            ids = ids.set(ids.cast(wanted.dtype) != wanted, None)
        return self._nodes_of(ids)

    def find_texts(self, texts: Sequence[str] | pl.Series) -> np.ndarray:
        """int64 [n]: nodes of the IDs that print as these texts, -1 for an unknown one, and for null."""
        if self.external_ids.dtype.is_integer() and len(texts) <= FEW:
            return self._nodes_of_few(list(texts))
        wanted = pl.Series(texts, dtype=pl.String)
        ids = wanted.cast(self.external_ids.dtype, strict=False)
        if self.external_ids.dtype != pl.String:
            # 07 is no way to print 7
            ids = ids.set((ids.cast(pl.String) != wanted).fill_null(False), None)
        return self._nodes_of(ids)

    def require_texts(self, texts: Sequence[str] | pl.Series) -> np.ndarray:
        """int64 [n]: nodes of the IDs that print as these texts. Raises `DataError` for the first unknown one."""
        nodes = self.find_texts(texts)
        for unknown in np.flatnonzero(nodes < 0)[:1]:
            parse_id(texts[int(unknown)], self.external_ids.alias(self.kind))  # which raises it in words
        return nodes

    def names_of(self, nodes: np.ndarray) -> pl.Series:
        """The external IDs of nodes of this type."""
        return self.external_ids[self.places_of(nodes)]

    def places_of(self, nodes: np.ndarray) -> np.ndarray:
        """int64 [n]: where nodes of this type stand among the external IDs."""
        return self._by_node[np.searchsorted(self.nodes, nodes, sorter=self._by_node)]

    @cached_property
    def _by_node(self) -> np.ndarray:
        return np.argsort(self.nodes, kind="stable")

    def _nodes_of(self, ids: pl.Series) -> np.ndarray:
        if not len(self.external_ids):
            return np.full(len(ids), -1)
        if self.external_ids.dtype.is_numeric():
            # numpy finds few numbers sooner than polars does
            return np.where(ids.is_not_null().to_numpy(), self._nodes_of_numbers(ids.fill_null(0).to_numpy()), -1)
        places = self.external_ids.search_sorted(ids).to_numpy().astype(np.int64).clip(max=len(self.external_ids) - 1)
        is_known = (self.external_ids[places] == ids).fill_null(False).to_numpy()
        return np.where(is_known, self.nodes[places], -1)

    def _nodes_of_few(self, texts: Sequence[str]) -> np.ndarray:
        """As `find_texts`, of IDs that are integers."""
        if not len(self.external_ids):
            return np.full(len(texts), -1)
        limits = np.iinfo(self._numbers.dtype)
        numbers = [_integer(text) for text in texts]
        is_one = np.array([number is not None and limits.min <= number <= limits.max for number in numbers], bool)
        wanted = np.array([number if one else 0 for number, one in zip(numbers, is_one, strict=True)], limits.dtype)
        return np.where(is_one, self._nodes_of_numbers(wanted), -1)

    def _nodes_of_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """As `_nodes_of`, of IDs that are numbers."""
        places = np.searchsorted(self._numbers, numbers).clip(max=len(self._numbers) - 1)
        return np.where(self._numbers[places] == numbers, self.nodes[places], -1)

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The external IDs, which are numbers."""
        return self.external_ids.to_numpy()


def open_ids(model: SavedModel, kind: str) -> IdIndex:
    ids = model.ids(kind)
    return IdIndex(kind, ids["external_id"], ids["node_id"].to_numpy())


def _integer(text: str | None) -> int | None:
    """The integer that prints as `text`, in Python and in polars."""
    if text is None or len(text) > LONGEST_NUMBER:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    # 07 is no way to print 7
    return number if str(number) == text else None
