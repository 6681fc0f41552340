"""`train.init_from`: begin with the weights of another run, as far as they fit.

Dense weights fit by name and shape. ID rows fit by node type and external ID, so that the data set may be another one,
with other numbers of nodes and parts. Every rank reads the rows of its own nodes.

Shape legend: n nodes of a type that this rank owns and the other model knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ConfigError
from dist_gat.base.storage import MANIFEST, sha256_of
from dist_gat.checkpoints.weight_files import DENSE, load_tensors, part_file
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.fail_together import together
from dist_gat.graph.part import read_ids
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.serve.fetched_run import model_url
from dist_gat.serve.saved_model import SavedModel, open_model

REMEDY = "train the run that train.init_from names again"
# what an adapter keeps as it is, and so needs
BASE_PARTS = ("encoder.", "inputs.")


class NotLoaded(NamedTuple):
    """there, here: the shape of a tensor, or the number of nodes; "" where there is none."""

    name: str
    there: str
    here: str
    why: str


@dataclass(frozen=True)
class Loaded:
    """What `load_base` did. base: where from. fingerprint: of that model. rows: by node type, ID rows that were loaded,
    and how many nodes there are here."""

    base: str
    fingerprint: str
    dense: tuple[str, ...]
    rows: dict[str, tuple[int, int]]
    not_loaded: tuple[NotLoaded, ...]

    def lines(self) -> list[str]:
        """A short table."""
        rows = [f"ID rows of {kind}: {done:,} of {total:,}" for kind, (done, total) in self.rows.items()]
        lines = [f"init_from {self.base}: {len(self.dense)} dense tensors; {'; '.join(rows)}"]
        if self.not_loaded:
            table = [("not loaded", "there", "here", "why"), *self.not_loaded]
            widths = [max(len(row[column]) for row in table) for column in range(3)]
            lines += [
                "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]])
                for row in table
            ]
        return lines


def open_base(name: str) -> SavedModel:
    """The saved model of a run, or the model folder itself, also at a URL. Raises `ConfigError`, `StorageError`."""
    if is_url(name):
        return open_model(model_url(name))
    folder = Path(name)
    if not folder.is_dir():
        raise ConfigError(f"train.init_from={name}: no such run; give the folder of a run that `dist-gat train` wrote")
    model = folder if (folder / MANIFEST).is_file() else folder / "model"
    if not (model / MANIFEST).is_file():
        raise ConfigError(
            f"train.init_from={name}: this run has no saved model yet, expected {model}; let it train to its end first"
        )
    return open_model(model)


def load_base(name: str, model: Recommender, store: GraphStore, channel: Channel) -> Loaded:
    """Fill the weights of a new model, in place. Collective."""
    kinds = store.ranges.node_types
    with together(channel, f"train.init_from={name}: can't be used"):
        saved = open_base(name)
        dense, not_loaded = load_fitting(load_tensors(saved.folder / DENSE), model.dense.state_dict())
        found = [load_rows_of(kind, saved, model, store) for kind in kinds]
    rows: dict[str, tuple[int, int]] = {}
    num_found = channel.sum(torch.tensor([number for number, _ in found])).tolist()
    for kind, done, (_, why) in zip(kinds, num_found, found, strict=True):
        total = store.ranges.count(kind)
        rows[kind] = done, total
        if done < total:
            there = f"{saved.ranges.count(kind):,} nodes" if kind in saved.ranges.node_types else ""
            reason = why or f"{total - done:,} external IDs are not there"
            not_loaded.append(NotLoaded(f"ID rows of {kind}", there, f"{total:,} nodes", reason))
    return Loaded(name, sha256_of(saved.folder / MANIFEST), tuple(dense), rows, tuple(not_loaded))


@torch.no_grad()
def load_fitting(there: dict[str, Tensor], here: dict[str, Tensor]) -> tuple[list[str], list[NotLoaded]]:
    """Copy the tensors with the same name and shape; returns their names, and what was left out on either side."""
    loaded, left = [], []
    for name in sorted({*there, *here}):
        shapes = tuple(str(list(side[name].shape)) if name in side else "" for side in (there, here))
        if name in there and name in here and shapes[0] == shapes[1]:
            here[name].copy_(there[name])
            loaded.append(name)
        else:
            why = "another shape" if all(shapes) else "not there" if shapes[1] else "not in this model"
            left.append(NotLoaded(name, shapes[0], shapes[1], why))
    return loaded, left


@torch.no_grad()
def load_rows_of(kind: str, saved: SavedModel, model: Recommender, store: GraphStore) -> tuple[int, str]:
    """How many ID rows of a node type this rank found, and why it looked for none."""
    if kind not in saved.ranges.node_types:
        return 0, "no such node type there"
    here, there = (read_ids(folder, kind, REMEDY) for folder in (store.prepared.folder, saved.folder))
    table, first = model.table.weight, store.ownership.first_node
    is_own = pl.col("node_id").is_between(first, first + len(table), closed="left")
    here = here.filter(is_own).select("external_id", "node_id")
    if here["external_id"].dtype != there["external_id"].dtype:
        here, there = (ids.with_columns(pl.col("external_id").cast(pl.String)) for ids in (here, there))
    both = here.join(there.select("external_id", there_id="node_id"), on="external_id")
    nodes_n, there_n = both["node_id"].to_numpy(), both["there_id"].to_numpy()
    part_n = saved.ranges.part_of(there_n)
    for part in np.unique(part_n):
        rows = load_tensors(part_file(saved.folder, part))["embedding"]
        if rows.shape[1] != table.shape[1]:
            return 0, f"rows of {rows.shape[1]} numbers there, of {table.shape[1]} here"
        mine = part_n == part
        found = rows[torch.from_numpy(there_n[mine] - saved.ranges.starts[part])]
        table[torch.from_numpy(nodes_n[mine] - first).to(table.device)] = found.to(table)
    return len(both), ""


def require_whole_base(loaded: Loaded) -> None:
    """Raise `ConfigError` where an adapter would keep weights as they are that were never trained."""
    missing = [one.name for one in loaded.not_loaded if one.here and one.name.startswith(BASE_PARTS)]
    if missing or not any(done for done, _ in loaded.rows.values()):
        raise ConfigError(
            f"model.adapter keeps the weights of {loaded.base} as they are, which lack "
            f"{', '.join(missing) or 'all ID rows'}; take the model settings of that run, or train without an adapter"
        )
