"""A user taken out of a prepared folder: edges, pairs, columns and ID. The number of the node stays.

So all other nodes keep their numbers, and a saved model stays usable.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.storage import MANIFEST, atomic_folder, save_array, write_manifest
from dist_gat.graph.part import EDGE_TYPES, FORMAT, POPULARITY_EXPONENT, SPLITS, VERSION, Part, PreparedGraph
from dist_gat.graph.schema import Relation

NOT_CONTENT = ("format", "version", "files")


def forget_in_prepared(prepared: PreparedGraph, node: int) -> int:
    """Replace the folder by one without a node's data. Returns how many of its pairs went.

    Means and levels of labels in the manifest stay as they were. Raises `StorageError`.
    """
    manifest = {key: copy.deepcopy(value) for key, value in prepared.manifest.items() if key not in NOT_CONTENT}
    with_pairs = [relation for relation in prepared.schema.relations if relation.has_pairs]
    manifest["target_messages"] = {relation.name: 0 for relation in with_pairs}
    gone = 0
    with atomic_folder(prepared.folder) as folder:
        shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        for part in prepared.parts:
            target = folder / "parts" / f"{part.number:04d}"
            indptr = forget_edges(part, target, node)
            for relation in with_pairs:
                for split in SPLITS:
                    lost = forget_pairs(part, target, relation, split, node)
                    manifest["split_counts"][relation.name][split][part.number] -= lost
                    manifest["edges"][relation.name] -= lost if split == SPLITS[0] else 0
                    gone += lost
                degree = part.rows.degrees_of(indptr, prepared.ranges.index_of(relation.target))[:, 0]
                running = np.cumsum(degree.astype(np.float64) ** POPULARITY_EXPONENT)
                save_array(target / relation.name / "popularity.npy", running)
                manifest["popularity_mass"][relation.name][part.number] = float(running[-1]) if len(running) else 0.0
                manifest["target_messages"][relation.name] += int(degree.sum())
            forget_columns(part, target, node)
        kind = prepared.ranges.node_types[int(prepared.ranges.type_of(np.array([node]))[0])]
        forget_id(folder, kind, node)
        write_manifest(folder, FORMAT, VERSION, manifest)
    return gone


def forget_edges(part: Part, target: Path, node: int) -> np.ndarray:
    """Write a part's messages without those from and to a node. Returns the new row pointers."""
    indptr, indices = np.array(part.indptr), np.asarray(part.indices)
    kept = indices != node
    if part.first_node <= node < part.first_node + part.num_nodes:
        own = node - part.first_node
        kept[int(part.node_starts[own]) : int(part.node_starts[own + 1])] = False
    indptr = np.append(0, np.cumsum(kept))[indptr]
    save_array(target / "indptr.npy", indptr)
    save_array(target / "indices.npy", indices[kept])
    for name in EDGE_TYPES:
        if (target / f"edge_{name}.npy").exists():
            save_array(target / f"edge_{name}.npy", np.asarray(part.edge_column(name))[kept])
    return indptr


def forget_pairs(part: Part, target: Path, relation: Relation, split: str, node: int) -> int:
    """Write the pairs of a split without a node's, with their labels and times. Returns how many went."""
    pairs = np.asarray(part.pairs(relation, split))
    kept = (pairs != node).all(axis=1)
    if kept.all():
        return 0
    for path in sorted((target / relation.name).glob(f"{split}*.npy")):
        save_array(path, np.load(path)[kept])
    return int((~kept).sum())


def forget_columns(part: Part, target: Path, node: int) -> None:
    for kind, rows in part.features.items():
        nodes = part.ranges.nodes_of_type(part.number, kind)
        if node in nodes:
            emptied = np.array(rows)
            emptied[node - nodes.start] = 0
            save_array(target / "features" / f"{kind}.npy", emptied)


def forget_id(folder: Path, kind: str, node: int) -> None:
    """Of prepared data, or of a saved model."""
    path = folder / "ids" / f"{kind}.parquet"
    ids: Any = pl.read_parquet(path)
    ids.filter(pl.col("node_id") != node).write_parquet(path)
