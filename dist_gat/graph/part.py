"""`PreparedGraph`: the folder that `prepare` writes, opened. `Part`: the arrays of one part, memory-mapped.

manifest.json              schema, counts, bounds, partition report, what it was made from; size and SHA-256 of files
cold_users/SPLIT.parquet   user_id, item (node ID)[, weight, time][, row]: what users who are no nodes have met
cold_users/SPLIT.npy       float32 [users, f]: what else is known of them, by `row`
ids/TYPE.parquet           node_id, external_id[, title]: sorted by external ID
categories/TYPE/COLUMN.parquet   category: their names, in the order of their codes
parts/0000/
  indptr.npy               int64 [r + 1]   CSC of in-edges, with the rows of `PartRows`: one a node and edge type
  indices.npy              int32/64 [e]    source node IDs: the newest edge first where there are times, then ascending
  edge_category.npy        uint16 [e]      where any relation has categories
  edge_weight.npy          float32 [e]     where any has weights
  edge_time.npy            int64 [e]       where any has times, microseconds
  features/TYPE.npy        float32 [n_t, f] what is known of nodes, see `column_layout`
  cold/item.npy            uint8 [n_t]     where a recipe holds items out: see `Part.cold`
  RELATION/                of each relation that a task can predict
    {train,valid,test}.npy int64 [m, 2]    (source, target) node IDs of the pairs whose source is here, sorted
    ..._LABEL.npy          float32 [m]     of each of these pairs: `weight`, where the input has it, and named labels
    ..._time.npy           int64 [m]       where the input has times, microseconds
    popularity.npy         float64 [n_t]   running sum of degree ** 0.75 over the part's targets
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError, StorageError
from dist_gat.base.part_files import files_by_part, open_parts
from dist_gat.base.storage import MANIFEST, open_array
from dist_gat.data.column_layout import Layout, read_layouts, width_of
from dist_gat.data.parquet import read_parquet
from dist_gat.graph.part_rows import PartRows, rows_of_part
from dist_gat.graph.ranges import NodeRanges, read_ranges
from dist_gat.graph.schema import Relation, Schema, read_schema

FORMAT, VERSION = "dist_gat.parts", 7
SPLITS = ("train", "valid", "test")
POPULARITY_EXPONENT = 0.75  # of the degree, in what negatives are drawn by
EDGE_TYPES = {"category": "uint16", "weight": "float32", "time": "int64"}
COLD_USERS = "cold_users"  # the folder of users who are no nodes
MADE_FROM = "made_from"  # the key of a manifest
REMEDY = "run `dist-gat prepare` with this configuration to write it anew"


@dataclass(frozen=True)
class Part:
    """One part; every array is opened on first use and stays a view of the page cache.

    An array whose type or shape is not what the manifest says is a `StorageError`: kernels trust both.
    """

    folder: Path
    number: int
    ranges: NodeRanges
    rows: PartRows
    edge_columns: tuple[str, ...]  # what its edges carry, of category, weight and time
    num_pairs: dict[str, dict[str, int]]  # relation -> split -> pairs
    feature_sizes: dict[str, int]  # node type -> columns

    @property
    def first_node(self) -> int:
        return int(self.ranges.starts[self.number])

    @property
    def num_nodes(self) -> int:
        return int(self.ranges.starts[self.number + 1]) - self.first_node

    @cached_property
    def indptr(self) -> np.ndarray:
        return open_array(self.folder / "indptr.npy", ("int64",), (self.rows.num_rows + 1,), REMEDY)

    @cached_property
    def node_starts(self) -> np.ndarray:
        """int64 [n + 1]: where the edges to each node begin, of whatever type."""
        return self.rows.node_starts(self.indptr)

    @cached_property
    def indices(self) -> np.ndarray:
        return open_array(self.folder / "indices.npy", ("int32", "int64"), (int(self.indptr[-1]),), REMEDY)

    def edge_column(self, name: str) -> np.ndarray:
        """[e]: category, weight or time of each edge, 0 where its relation has none."""
        return self._opened(f"edge_{name}", EDGE_TYPES[name], self.indices.shape)

    def read_ahead(self) -> None:
        """Ask the system to read, in the background, what training needs of the part: all but held-out pairs.

        Steps read all over these files, and the disk is fastest from one end to the other.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        for path in self.folder.rglob("*.npy"):
            if not path.name.startswith(SPLITS[1:]):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def popularity(self, relation: Relation) -> np.ndarray:
        """float64 [targets]: the running sum of degree ** 0.75 over the part's nodes that a relation leads to."""
        shape = (len(self.ranges.nodes_of_type(self.number, relation.target)),)
        return self._opened(f"{relation.name}/popularity", "float64", shape)

    def pairs(self, relation: Relation, split: str) -> np.ndarray:
        """int64 [m, 2]: (source, target) node IDs of a relation's pairs whose source is here, sorted."""
        return self._opened(f"{relation.name}/{split}", "int64", (self.num_pairs[relation.name][split], 2))

    def labels(self, relation: Relation, split: str, label: str) -> np.ndarray:
        """float32 [m]: what was given of each of these pairs: a rating, a click, a count. Raises `StorageError`."""
        return self._opened(f"{relation.name}/{split}_{label}", "float32", (self.num_pairs[relation.name][split],))

    def times(self, relation: Relation, split: str) -> np.ndarray:
        """int64 [m]: when each of these pairs was, in microseconds; where the relation has times."""
        return self._opened(f"{relation.name}/{split}_time", "int64", (self.num_pairs[relation.name][split],))

    def cold(self, kind: str) -> np.ndarray:
        """uint8 [n_t]: 1 and 2 of items whose interactions are valid, or test, all of them; 0 of those that have a
        training interaction, 3 of others. Where a recipe holds items out."""
        return self._opened(f"cold/{kind}", "uint8", (len(self.ranges.nodes_of_type(self.number, kind)),))

    def trained(self, kind: str) -> np.ndarray:
        """int64: the places of the nodes of a type whose `cold` is 0, among those of the part."""
        name = f"trained/{kind}"
        if name not in self._arrays:
            self._arrays[name] = np.flatnonzero(self.cold(kind) == 0)
        return self._arrays[name]

    def _opened(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = open_array(self.folder / f"{name}.npy", (dtype,), shape, REMEDY)
        return self._arrays[name]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Node type -> float32 [n, f], for the types that have any."""
        found = {}
        for kind, size in self.feature_sizes.items():
            num_rows = len(self.ranges.nodes_of_type(self.number, kind))
            found[kind] = open_array(self.folder / "features" / f"{kind}.npy", ("float32",), (num_rows, size), REMEDY)
        return found

    def replace_features(self, kind: str, columns: slice, values: np.ndarray) -> None:
        """From now on this process reads float32 [n, f'] in some columns of a type, from memory. The file stays."""
        if not self.features[kind].flags.writeable:
            self.features[kind] = np.array(self.features[kind])
        self.features[kind][:, columns] = values


@dataclass(frozen=True)
class PreparedGraph:
    """A prepared data set: its manifest, its schema, its ranges, and its parts on request."""

    folder: Path
    manifest: dict[str, Any]
    schema: Schema
    ranges: NodeRanges

    @cached_property
    def parts(self) -> list[Part]:
        return [
            Part(
                part_folder(self.folder, part),
                part,
                self.ranges,
                rows_of_part(self.ranges, self.schema, part),
                self.schema.edge_columns,
                {
                    name: {split: counts[split][part] for split in SPLITS}
                    for name, counts in self.manifest["split_counts"].items()
                },
                self.feature_sizes,
            )
            for part in range(self.ranges.num_parts)
        ]

    def is_here(self, part: int) -> bool:
        """Whether this host has the files of a part: it fetches its own alone where the folder is at a URL."""
        return all((self.folder / name).is_file() for name in self._files_of_parts.get(part, ()))

    @property
    def parts_here(self) -> list[Part]:
        return [part for part in self.parts if self.is_here(part.number)]

    @cached_property
    def _files_of_parts(self) -> dict[int, list[str]]:
        return files_by_part(self.manifest["files"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest: two data sets with the same fingerprint hold the same bytes, whatever they were made
        from."""
        content = {key: value for key, value in self.manifest.items() if key != MADE_FROM}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Node type → width of the matrix of what is known of its nodes, for the types that have one."""
        return {kind: width_of(layout) for kind, layout in self.layouts.items()}

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Node type → the columns of its nodes, for the types that have any."""
        return read_layouts(self.manifest, self.schema.node_types, self.folder / MANIFEST, REMEDY)

    def categories(self, node_type: str, column: str) -> pl.Series:
        """The names of a column's categories, by code. Raises `StorageError`."""
        return read_categories(self.folder, node_type, column, REMEDY)

    def has_times(self, relation: Relation) -> bool:
        return any("time" in one.columns for one in self.schema.relations if one.name == relation.name)

    def has_label(self, relation: Relation, label: str) -> bool:
        return label in self.manifest["labels"][relation.name]

    def cold_targets(self, relation: Relation) -> dict[str, list[int]] | None:
        """How many targets have each `Part.cold`, by split and part, where the split holds some of them out."""
        is_first = relation.name == self.schema.relations[0].name
        found: dict[str, list[int]] | None = self.manifest.get("cold", {}).get(relation.target)
        return found if is_first else None

    def num_cold_users(self, split: str) -> int:
        """How many users of a split are no nodes, since a recipe holds them out."""
        return int(self.manifest.get("cold", {}).get(self.schema.relations[0].source, {}).get(split, 0))

    def cold_users(self, split: str) -> pl.DataFrame:
        """Columns user_id, item, a node ID[, weight, time][, row]: what users of a split who are no nodes have met.

        row: of `cold_user_columns`.
        """
        path = self.folder / COLD_USERS / f"{split}.parquet"
        try:
            return read_parquet(path)
        except ValueError as err:
            raise StorageError(f"{path}: expected a readable parquet file: {err}; {REMEDY}") from None

    def cold_user_columns(self, split: str) -> np.ndarray:
        """float32 [users, width]: of these users, where the table has rows. Raises `StorageError`."""
        kind = self.schema.relations[0].source
        shape = (self.num_cold_users(split), self.feature_sizes[kind])
        return open_array(self.folder / COLD_USERS / f"{split}.npy", ("float32",), shape, REMEDY)

    def num_pairs(self, relation: Relation, split: str) -> int:
        return int(sum(self.manifest["split_counts"][relation.name][split]))

    def describe_labels(self, relation: Relation, label: str) -> dict[str, Any]:
        """`mean`, `min` and `max` of the training labels; where they are few, `levels` of all splits, and the `counts`
        of training pairs.

        Raises `DataError` where there are none.
        """
        known = self.manifest["labels"][relation.name]
        if label not in known:
            of = "data" if relation.name == self.schema.relations[0].name else f"data.relations.{relation.name}"
            setting = f"{of}.columns.{'weight' if label == 'weight' else f'labels.{label}'}"
            raise DataError(
                f"{self.folder}: the pairs of {relation.name} have no {label}, which the task asks for; they have "
                f"{', '.join(known) or 'no labels'}; name its column in {setting}, and prepare again"
            )
        return dict(known[label])

    def pair_starts(self, relation: Relation, split: str) -> np.ndarray:
        """int64 [P + 1]: part p holds the split's pairs out[p] to out[p + 1] - 1 of their global order."""
        counts = self.manifest["split_counts"][relation.name][split]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def target_messages(self, relation: Relation) -> int:
        """The sum of the in-degrees of a relation's targets."""
        return int(self.manifest["target_messages"][relation.name])

    def popularity_mass(self, relation: Relation) -> np.ndarray:
        """float64 [P]: the sum of degree ** 0.75 over each part's targets."""
        return np.array(self.manifest["popularity_mass"][relation.name], dtype=np.float64)

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


def read_categories(folder: Path, node_type: str, column: str, remedy: str) -> pl.Series:
    """The names of a column's categories in `folder/categories`, by code. Raises `StorageError`."""
    path = folder / "categories" / node_type / f"{column}.parquet"
    try:
        return read_parquet(path)["category"]
    except (ValueError, pl.exceptions.PolarsError) as err:
        raise StorageError(f"{path}: expected a readable parquet file: {err}; {remedy}") from None


def part_folder(root: Path, part: int) -> Path:
    return root / "parts" / f"{part:04d}"


def open_prepared(
    folder: str | Path, verify: bool = False, progress: Callable[[str], None] = lambda message: None,
    parts: Collection[int] | None = None, cache: Path | None = None,
) -> PreparedGraph:  # fmt: skip
    """Open a prepared folder. Size and ends of its files are always checked, their whole SHA-256 with `verify`.

    folder: also a URL, from which its files are fetched into `cache` of this host: of these parts, by default of all,
    and what is of no part. Raises `StorageError`.
    """
    folder, manifest = open_parts(folder, FORMAT, VERSION, REMEDY, verify, progress, parts, cache)
    schema = read_schema(manifest, folder / MANIFEST, REMEDY)
    ranges = read_ranges(manifest, schema.node_types, folder / MANIFEST, REMEDY)
    _check_counts(manifest, folder / MANIFEST, schema, ranges)
    prepared = PreparedGraph(folder, manifest, schema, ranges)
    _ = prepared.layouts  # checks them
    return prepared


def _check_counts(manifest: dict[str, Any], file: Path, schema: Schema, ranges: NodeRanges) -> None:
    """Raise `StorageError` unless a manifest has a number for each part."""
    counts: Any
    mass: Any
    labels: Any
    received: Any
    keys = ("split_counts", "popularity_mass", "labels", "target_messages")
    counts, mass, labels, received = (manifest.get(key) for key in keys)
    try:
        names = [relation.name for relation in schema.relations if relation.has_pairs]
        lists = [*(counts[name][split] for name in names for split in SPLITS), *(mass[name] for name in names)]
        fits = all(keyed.keys() == set(names) for keyed in (counts, mass, labels, received))
        described = [label for name in names for label in labels[name].values()]
        fits = fits and all(isinstance(label[key], float) for label in described for key in ("mean", "min", "max"))
    except (TypeError, KeyError, AttributeError):
        fits, lists = False, []
    if not fits or not all(_is_number_a_part(values, ranges.num_parts) for values in lists):
        raise StorageError(
            f"{file}: expected split_counts of {', '.join(SPLITS)} and popularity_mass by relation, with a number for "
            f"each of {ranges.num_parts} parts, and labels by relation; {REMEDY}"
        )


def _is_number_a_part(values: Any, num_parts: int) -> bool:
    return isinstance(values, list) and len(values) == num_parts and all(isinstance(v, int | float) for v in values)
