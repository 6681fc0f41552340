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
        """int64 [n]: nodes of the IDs that print as these texts, -1 for an unknown one."""
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
        if self._numbers is not None:
            numbers = ids.fill_null(0).to_numpy()
            places = np.searchsorted(self._numbers, numbers).clip(max=len(self._numbers) - 1)
            is_known = (self._numbers[places] == numbers) & ids.is_not_null().to_numpy()
        else:
            places = self.external_ids.search_sorted(ids).to_numpy().astype(np.int64)
            places = places.clip(max=len(self.external_ids) - 1)
            is_known = (self.external_ids[places] == ids).fill_null(False).to_numpy()
        return np.where(is_known, self.nodes[places], -1)

    @cached_property
    def _numbers(self) -> np.ndarray | None:
        """The external IDs where they are numbers; numpy finds few of them sooner than polars does."""
        return self.external_ids.to_numpy() if self.external_ids.dtype.is_numeric() else None


def open_ids(model: SavedModel, kind: str) -> IdIndex:
    ids = model.ids(kind)
    return IdIndex(kind, ids["external_id"], ids["node_id"].to_numpy())
