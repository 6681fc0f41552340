"""A data set as `load_dataset` sees it, with the external IDs in place of indices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.config.data_sections import DataConfig, SplitConfig
from dist_gat.data.dataset import Dataset, load_dataset
from dist_gat.data.distinct_pairs import encode_pairs
from dist_gat.data.edge_file import EdgeFile, degrees, write_edges
from dist_gat.data.engine import Engine
from dist_gat.data.source import open_source
from dist_gat.data.split import SPLITS, hash_ids, split_edges, with_keys
from dist_gat.data.table import IDS, read_table
from dist_gat.data.vocabulary import IdColumn, build_vocabulary
from dist_gat.graph.assign import Graph

MEMORY = 1 << 30
FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # which vanish with the process


@dataclass(frozen=True)
class Loaded:
    users: pl.Series
    items: pl.Series
    columns: dict[str, dict[str, np.ndarray]]  # by split or relation: of the edges, in their order
    dataset: Dataset

    def rows(self, split: str = "train") -> list[tuple[Any, ...]]:
        """User, item, labels and time of the edges, sorted by user and item."""
        found = self.columns[split]
        users, items = self.users.gather(found["source"]), self.items.gather(found["target"])
        return list(zip(users, items, *(values.tolist() for values in list(found.values())[2:]), strict=True))

    def pairs(self, split: str = "train") -> list[tuple[Any, Any]]:
        return [row[:2] for row in self.rows(split)]


def load(config: DataConfig, seed: int = 0, rows: int | None = None, tables: Any = None) -> Loaded:
    with tempfile.TemporaryDirectory() as folder, Engine(Path(folder), MEMORY) as engine:
        data = load_dataset(engine, config, seed, tables, rows)
        users, items = (pl.concat(list(nodes.ids(engine))) for nodes in (data.users, data.items))
        edges: dict[str, EdgeFile] = {split: getattr(data, split) for split in SPLITS}
        edges |= {name: own.file for name, own in data.relations.items()}
        columns = {}
        for name, some in edges.items():
            found = some.read(0, some.count)
            found |= {end: found[end].astype(np.int64) for end in ("source", "target")}
            labels = {label: found[label] for label in some.labels}
            time = {"time": found["time"]} if "time" in found else {}
            columns[name] = {"source": found["source"], "target": found["target"], **labels, **time}
        return Loaded(users, items, columns, data)


def load_table(path: Path | str, tables: Any = None, **settings: Any) -> Loaded:
    """All rows of one table, as training edges."""
    split = {"split": {"valid_ratio": 0, "test_ratio": 0}}
    return load(DataConfig.model_validate({**split, **settings, "interactions": str(path)}), tables=tables)


def split_table(frame: pl.DataFrame, split: SplitConfig, seed: int, rows: int = 1 << 20) -> dict[str, pl.DataFrame]:
    """The rows of a table of distinct pairs by split, also those of users whom training does not have."""
    config = DataConfig(interactions="t", split=split)
    with tempfile.TemporaryDirectory() as folder, Engine(Path(folder), MEMORY) as engine:
        table = read_table(engine, "t", open_source("t", config, tables={"t": frame}), config, config.columns)
        users, items = (build_vocabulary(engine, end, [IdColumn(table, end)]) for end in IDS)
        edges, _, _ = encode_pairs(engine, "t", [table], users, items, "auto", is_split=False)
        hashes = hash_ids(engine, users, f"{seed}/user_id/"), hash_ids(engine, items, f"{seed}/item_id/")
        edges = with_keys(edges, hashes, rows)
        degree = degrees(edges, "source", users.count, rows)
        number = np.concatenate(list(split_edges(edges, split, degree, rows)))
        found = edges.read(0, edges.count)
        ids = [pl.concat(list(v.ids(engine))).gather(found[end]) for v, end in ((users, "source"), (items, "target"))]
        whole = pl.DataFrame({"user_id": ids[0], "item_id": ids[1]})
        if "time" in found:
            whole = whole.with_columns(datetime=pl.Series(found["time"] // 10**6))
        return {name: whole.filter(pl.Series(number == n)) for n, name in enumerate(SPLITS)}


def edges_of(pairs: Iterable[tuple[int, int]], columns: dict[str, Any] | None = None) -> EdgeFile:
    """Pairs of dense indices, and perhaps labels or times, as training edges on disk, until the process ends."""
    user, item = np.array(list(pairs)).T
    order = np.lexsort((item, user))
    found = {"source": user[order], "target": item[order]}
    found |= {name: np.asarray(values)[order] for name, values in (columns or {}).items()}
    types = {name: {"source": "uint32", "target": "uint32", "time": "int64"}.get(name, "float32") for name in found}
    folder = tempfile.TemporaryDirectory()
    FOLDERS.append(folder)
    return write_edges(Path(folder.name) / "edges", types, [found])


def interactions_graph(chunks: Sequence[tuple[np.ndarray, np.ndarray]], degree: Any) -> Graph:
    """What parts are made for, of interactions alone. degree: of users and of items."""
    return Graph([len(of_type) for of_type in degree], [(0, 1, lambda: chunks)], degree, tuple(degree))
