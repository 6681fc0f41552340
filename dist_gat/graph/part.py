"""`PreparedGraph`: the folder that `prepare` writes, opened. `Part`: the arrays of one part, memory-mapped.

    manifest.json              counts, bounds, partition report, size and SHA-256 of every file
    ids/{user,item}.parquet    node_id, external_id[, title]: sorted by external ID
    parts/0000/
      indptr.npy               int64 [n + 1]   CSC of in-edges: row of the part's j-th node
      indices.npy              int32/64 [e]    source node IDs, ascending within a row
      edge_weight.npy          float32 [e]     where the input has weights
      edge_time.npy            int64 [e]       where the input has times, microseconds
      {train,valid,test}.npy   int64 [m, 2]    (user, item) node IDs of the edges whose user is here, sorted
      popularity.npy           float64 [items] running sum of degree ** 0.75 over the part's items
      features/{user,item}.npy float32 [n_t, f]

Further node types become further columns of the bounds; further edge types a further array beside `indices`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import StorageError
from dist_gat.base.storage import MANIFEST, open_array, read_manifest, verify_files
from dist_gat.data.parquet import read_parquet
from dist_gat.graph.ranges import ITEM, NodeRanges, read_ranges

FORMAT, VERSION = "dist_gat.parts", 2
SPLITS = ("train", "valid", "test")
REMEDY = "run `dist-gat prepare` with this configuration to write it anew"


@dataclass(frozen=True)
class Part:
    """One part; every array is opened on first use and stays a view of the page cache.

    An array whose type or shape is not what the manifest says is a `StorageError`: kernels trust both.
    """

    folder: Path
    number: int
    ranges: NodeRanges
    num_edges: dict[str, int]  # of each split
    feature_sizes: dict[str, int]  # node type -> columns

    @property
    def first_node(self) -> int:
        return int(self.ranges.starts[self.number])

    @property
    def num_nodes(self) -> int:
        return int(self.ranges.starts[self.number + 1]) - self.first_node

    @cached_property
    def indptr(self) -> np.ndarray:
        return open_array(self.folder / "indptr.npy", ("int64",), (self.num_nodes + 1,), REMEDY)

    @cached_property
    def indices(self) -> np.ndarray:
        return open_array(self.folder / "indices.npy", ("int32", "int64"), (int(self.indptr[-1]),), REMEDY)

    @cached_property
    def popularity(self) -> np.ndarray:
        num_items = len(self.ranges.nodes_of_type(self.number, ITEM))
        return open_array(self.folder / "popularity.npy", ("float64",), (num_items,), REMEDY)

    @cached_property
    def edges(self) -> dict[str, np.ndarray]:
        """Of each split, int64 [m, 2] (user, item) node IDs, sorted."""
        return {
            split: open_array(self.folder / f"{split}.npy", ("int64",), (self.num_edges[split], 2), REMEDY)
            for split in SPLITS
        }

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Node type -> float32 [n, f], for the types that have any."""
        found = {}
        for kind, size in self.feature_sizes.items():
            num_rows = len(self.ranges.nodes_of_type(self.number, self.ranges.node_types.index(kind)))
            found[kind] = open_array(self.folder / "features" / f"{kind}.npy", ("float32",), (num_rows, size), REMEDY)
        return found


@dataclass(frozen=True)
class PreparedGraph:
    """A prepared data set: its manifest, its ranges, and its parts on request."""

    folder: Path
    manifest: dict[str, Any]
    ranges: NodeRanges

    @cached_property
    def parts(self) -> list[Part]:
        return [
            Part(
                part_folder(self.folder, part),
                part,
                self.ranges,
                {split: self.manifest["split_counts"][split][part] for split in SPLITS},
                self.feature_sizes,
            )
            for part in range(self.ranges.num_parts)
        ]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest: two data sets with the same fingerprint hold the same bytes."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Node type → number of input feature columns, for the types that have any."""
        return dict(self.manifest["feature_sizes"])

    def num_edges(self, split: str) -> int:
        return int(sum(self.manifest["split_counts"][split]))

    def edge_starts(self, split: str) -> np.ndarray:
        """int64 [P + 1]: part p holds the split's edges out[p] to out[p + 1] - 1 of their global order."""
        return np.concatenate([[0], np.cumsum(self.manifest["split_counts"][split])]).astype(np.int64)

    def ids(self, node_type: str) -> pl.DataFrame:
        """Columns external_id, node_id[, title], sorted by external_id."""
        return read_ids(self.folder, node_type, REMEDY)


def read_ids(folder: Path, node_type: str, remedy: str) -> pl.DataFrame:
    """Columns external_id, node_id[, title] of `folder/ids`, sorted by external_id. Raises `StorageError`."""
    path = folder / "ids" / f"{node_type}.parquet"
    try:
        ids = read_parquet(path)
    except ValueError as err:
        raise StorageError(f"{path}: expected a readable parquet file: {err}; {remedy}") from None
    if ids.columns[:2] != ["external_id", "node_id"] or ids["node_id"].dtype != pl.Int64:
        raise StorageError(f"{path}: expected external_id and int64 node_id, found {dict(ids.schema)}; {remedy}")
    return ids


def part_folder(root: Path, part: int) -> Path:
    return root / "parts" / f"{part:04d}"


def open_prepared(
    folder: str | Path, verify: bool = False, progress: Callable[[str], None] = lambda message: None
) -> PreparedGraph:
    """Open a prepared folder. Size and ends of its files are always checked, their whole SHA-256 with `verify`.

    Raises `StorageError`.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, FORMAT, VERSION, REMEDY)
    ranges = read_ranges(manifest, folder / MANIFEST, REMEDY)
    _check_counts(manifest, folder / MANIFEST, ranges)
    if verify:
        verify_files(folder, manifest, REMEDY, progress)
    return PreparedGraph(folder, manifest, ranges)


def _check_counts(manifest: dict[str, Any], file: Path, ranges: NodeRanges) -> None:
    """Raise `StorageError` unless a manifest has a number for each part, and sizes of features."""
    counts, mass, sizes = (manifest.get(key) for key in ("split_counts", "popularity_mass", "feature_sizes"))
    lists = [counts.get(split) for split in SPLITS] if isinstance(counts, dict) else [None]
    fits = all(
        isinstance(values, list) and len(values) == ranges.num_parts and all(isinstance(v, int | float) for v in values)
        for values in [*lists, mass]
    )
    if not fits or not isinstance(sizes, dict) or not sizes.keys() <= set(ranges.node_types):
        raise StorageError(
            f"{file}: expected split_counts of {', '.join(SPLITS)} and popularity_mass with a number for each of "
            f"{ranges.num_parts} parts, and feature_sizes by node type; {REMEDY}"
        )
