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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.graph.ranges import NodeRanges
from dist_gat.storage import open_array, read_manifest, verify_files

FORMAT, VERSION = "dist_gat.parts", 1
SPLITS = ("train", "valid", "test")
REMEDY = "run `dist-gat prepare` with this configuration to write it anew"


@dataclass(frozen=True)
class Part:
    """One part; every array is opened on first use and stays a view of the page cache."""

    folder: Path
    number: int
    first_node: int

    def _open(self, name: str) -> np.ndarray:
        return open_array(self.folder / f"{name}.npy")

    @cached_property
    def indptr(self) -> np.ndarray:
        return self._open("indptr")

    @cached_property
    def indices(self) -> np.ndarray:
        return self._open("indices")

    @cached_property
    def popularity(self) -> np.ndarray:
        return self._open("popularity")

    @cached_property
    def edges(self) -> dict[str, np.ndarray]:
        """Of each split, int64 [m, 2] (user, item) node IDs, sorted."""
        return {split: self._open(split) for split in SPLITS}

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        return {path.stem: open_array(path) for path in sorted((self.folder / "features").glob("*.npy"))}

    @property
    def num_nodes(self) -> int:
        return self.indptr.shape[0] - 1


@dataclass(frozen=True)
class PreparedGraph:
    """A prepared data set: its manifest, its ranges, and its parts on request."""

    folder: Path
    manifest: dict[str, Any]
    ranges: NodeRanges

    @cached_property
    def parts(self) -> list[Part]:
        starts = self.ranges.starts
        return [Part(part_folder(self.folder, p), p, int(starts[p])) for p in range(self.ranges.num_parts)]

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
        return pl.read_parquet(self.folder / "ids" / f"{node_type}.parquet")


def part_folder(root: Path, part: int) -> Path:
    return root / "parts" / f"{part:04d}"


def open_prepared(folder: str | Path, verify: bool = False) -> PreparedGraph:
    """Open a prepared folder; sizes are always checked, SHA-256 with `verify`. Raises `StorageError`."""
    folder = Path(folder)
    manifest = read_manifest(folder, FORMAT, VERSION, REMEDY)
    if verify:
        verify_files(folder, manifest, REMEDY)
    bounds = np.array(manifest["bounds"], dtype=np.int64)
    return PreparedGraph(folder, manifest, NodeRanges(bounds, tuple(manifest["node_types"])))
