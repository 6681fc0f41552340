"""The saved model: all that `recommend` needs, without the prepared data set.

manifest.json, config.yaml     format, counts, SHA-256 of the files; the recipe
dense.safetensors              weights of the layers
parts/0000.safetensors         embedding, representation of each node
known/0000.{indptr,items}.npy  what each user of the part has met in training and validation
ids/{user,item}.parquet        external IDs, node IDs, titles
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dist_gat.config import Config, dump_config
from dist_gat.data.vocabulary import parse_id
from dist_gat.errors import ConfigError, StorageError
from dist_gat.evaluate.topk import Known, RunningTopK, known_items
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.shared_folder import shared_folder
from dist_gat.graph.part import read_ids
from dist_gat.graph.ranges import ITEM, USER, NodeRanges, read_ranges
from dist_gat.nn.recommender import Recommender
from dist_gat.nn.weights import load_tensors, part_file, save_dense, save_parts
from dist_gat.sampling.store import GraphStore
from dist_gat.storage import (
    MANIFEST,
    open_array,
    read_manifest,
    refuse_foreign_folder,
    refuse_links_out,
    save_array,
    verify_files,
)

FORMAT, VERSION = "dist_gat.model", 2
REMEDY = "run `dist-gat train` to write the model anew"


def save_model(config: Config, model: Recommender, rows_OR: Tensor, store: GraphStore, channel: Channel) -> None:
    """Write `run_folder/model`. Collective; ranks share the file system."""
    ranges = store.ranges
    content = {
        "name": config.name,
        "node_types": list(ranges.node_types),
        "bounds": ranges.bounds.tolist(),
        "representation_size": int(rows_OR.shape[1]),
        "data_fingerprint": store.prepared.fingerprint,
    }
    with shared_folder(config.run_folder / "model", channel, FORMAT, VERSION, content) as folder:
        if channel.rank == 0:
            save_dense(folder, model)
            (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
            shutil.copytree(store.prepared.folder / "ids", folder / "ids")
        save_parts(folder, model, ranges, store.own_parts, {"representation": rows_OR})
        for part in store.own_parts:
            users = ranges.nodes_of_type(part, USER)
            edges = store.prepared.parts[part].edges
            known = known_items(users.start, len(users), [edges["train"], edges["valid"]])
            save_array(folder / "known" / f"{part:04d}.indptr.npy", known.indptr)
            save_array(folder / "known" / f"{part:04d}.items.npy", known.items)


@dataclass(frozen=True)
class SavedModel:
    """A model folder, opened."""

    folder: Path
    manifest: dict[str, Any]
    ranges: NodeRanges

    def ids(self, node_type: str) -> pl.DataFrame:
        return read_ids(self.folder, node_type, REMEDY)

    def representation(self, part: int) -> Tensor:
        """[nodes of the part, R]. Raises `StorageError`."""
        file = part_file(self.folder, part)
        rows = load_tensors(file).get("representation")
        expected = (int(np.diff(self.ranges.starts)[part]), self.manifest["representation_size"])
        if rows is None or tuple(rows.shape) != expected:
            found = "none" if rows is None else f"{list(rows.shape)}"
            raise StorageError(f"{file}: expected representations {list(expected)}, found {found}; {REMEDY}")
        return rows

    def known(self, part: int) -> Known:
        """What each user of the part has met. Raises `StorageError`."""
        folder, num_users = self.folder / "known", len(self.ranges.nodes_of_type(part, USER))
        indptr = np.asarray(open_array(folder / f"{part:04d}.indptr.npy", ("int64",), (num_users + 1,), REMEDY))
        items = np.asarray(open_array(folder / f"{part:04d}.items.npy", ("int64",), (int(indptr[-1]),), REMEDY))
        return Known(indptr, items)


def open_model(
    folder: str | Path, verify: bool = False, progress: Callable[[str], None] = lambda message: None
) -> SavedModel:
    """Open a model folder. Size and ends of its files are always checked, their whole SHA-256 with `verify`.

    Raises `StorageError`.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, FORMAT, VERSION, REMEDY)
    ranges = read_ranges(manifest, folder / MANIFEST, REMEDY)
    if not all(isinstance(manifest.get(k), t) for k, t in (("representation_size", int), ("data_fingerprint", str))):
        raise StorageError(f"{folder / MANIFEST}: expected representation_size and data_fingerprint; {REMEDY}")
    if verify:
        verify_files(folder, manifest, REMEDY, progress)
    return SavedModel(folder, manifest, ranges)


def check_run_folder(run_folder: Path) -> None:
    """Raise where a run would write or read outside its folder, or replace a `model` that is not one of ours."""
    refuse_links_out(run_folder)
    refuse_foreign_folder(run_folder / "model", FORMAT, "run", "dist-gat train")


def recommend_items(model: SavedModel, users: list[str], k: int) -> pl.DataFrame:
    """The K best items that each user has not met: user_id, item_id, score, rank[, title].

    users: external IDs as text; they are read as the type that the data set has. Raises `DataError` for an
    unknown one.
    """
    if k < 1:
        raise ConfigError(f"k={k}: expected a positive number of items a user")
    user_ids, item_ids = model.ids("user"), model.ids("item")
    wanted = [parse_id(user, user_ids["external_id"]) for user in users]
    node_of = dict(zip(user_ids["external_id"], user_ids["node_id"], strict=True))
    nodes = np.array([node_of[user] for user in wanted], dtype=np.int64)
    rows_nR, known = _rows_of_users(model, nodes)
    best = RunningTopK(len(nodes), k)
    for part in range(model.ranges.num_parts):
        items = model.ranges.nodes_of_type(part, ITEM)
        start = items.start - int(model.ranges.starts[part])
        block = model.representation(part)[start : start + len(items)]
        best.merge(0, (rows_nR @ block.T).float().numpy(), items.start, known)
    found = best.items_UK >= 0
    row, column = np.nonzero(found)
    table = pl.DataFrame(
        {
            "user_id": pl.Series(wanted, dtype=user_ids["external_id"].dtype).gather(row),
            "node_id": best.items_UK[found],
            "score": best.scores_UK[found],
            "rank": column + 1,
        }
    ).join(item_ids.rename({"external_id": "item_id"}), on="node_id", how="left", maintain_order="left")
    columns = ["user_id", "item_id", "score", "rank", *(["title"] if "title" in item_ids.columns else [])]
    return table.select(columns)


def _rows_of_users(model: SavedModel, nodes: np.ndarray) -> tuple[Tensor, Known]:
    """Representations [n, R] and known items of user nodes, read from their parts."""
    rows_nR = torch.zeros(len(nodes), model.manifest["representation_size"])
    pairs = []
    for part in np.unique(model.ranges.part_of(nodes)):
        representation, known = model.representation(part), model.known(part)
        first_user = model.ranges.nodes_of_type(part, USER).start
        for place in np.flatnonzero(model.ranges.part_of(nodes) == part):
            user = int(nodes[place]) - first_user
            rows_nR[place] = representation[int(nodes[place]) - int(model.ranges.starts[part])]
            met = known.items[known.indptr[user] : known.indptr[user + 1]]
            pairs.append(np.stack([np.full(len(met), place), met], axis=1))
    return rows_nR, known_items(0, len(nodes), pairs)
