"""`prepare`: interactions in, a folder of checksummed, node-ID-sharded parts out.

The engine reads, checks, encodes and sorts; the rest are passes over sorted edges on disk. Memory grows with the nodes
alone, and the files depend neither on it nor on threads and chunks.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dist_gat.base.errors import ConfigError
from dist_gat.base.free_memory import free_memory
from dist_gat.base.json_text import to_json
from dist_gat.base.run_folder import LOCK_FILE, lock_run
from dist_gat.base.storage import atomic_folder, refuse_foreign_folder, write_manifest, write_text
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.sections import PartsConfig
from dist_gat.data.dataset import Dataset, chunk_rows, load_dataset
from dist_gat.data.edge_file import EdgeFile, degrees
from dist_gat.data.engine import Engine, Tasks
from dist_gat.graph.assign import assign_nodes
from dist_gat.graph.held_out import held_out_warnings
from dist_gat.graph.made_from import made_from
from dist_gat.graph.part import FORMAT, MADE_FROM, SPLITS, VERSION
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import INTERACTIONS, Relation, Schema
from dist_gat.graph.shards import INTERACTS, Relabelling, ShardWriter

# as many as a scale of ratings may have; more are a count or a measurement
MAX_LEVELS = 100
# labels that are added up at once; not what fits in memory, on which the sum would depend in its last digits
BLOCK_ROWS = 1 << 20


def prepare_dataset(
    name: str,
    data: DataConfig,
    parts: PartsConfig,
    seed: int,
    progress: Callable[[str], None] = lambda message: None,
    tables: Mapping[str, Any] | None = None,
    rows: int | None = None,
    tasks: Tasks | None = None,
) -> dict[str, Any]:
    """Write `data.prepared` and return the report that its manifest keeps.

    tables: data frames, by the names that the recipe has for files. rows: of a chunk, by default what fits in memory.
    tasks: for the passes that read and sort, by default in this process.
    The folder appears whole or not at all. Raises `DataError` on bad input.
    """
    refuse_foreign_folder(Path(data.prepared), FORMAT, "data.prepared", "dist-gat prepare")
    made = made_from(data, parts, seed)  # first, so that a table that changes meanwhile is another one
    memory = int(data.memory_gb * 1e9) if data.memory_gb else free_memory() // 2
    with (
        _work_folder(Path(data.prepared), None if tables else made) as work,
        Engine(work, memory, progress, tasks=tasks) as engine,
    ):
        rows = rows or chunk_rows(memory)
        dataset = load_dataset(engine, data, seed, tables, rows)
        smallest = min(dataset.users.count, dataset.items.count)
        if parts.num_parts > smallest:
            raise ConfigError(
                f"parts.num_parts={parts.num_parts} exceeds the {smallest} nodes of the smaller node type; choose fewer"
            )
        num_nodes = dataset.users.count + dataset.items.count
        progress(f"assigning {num_nodes:,} nodes to {parts.num_parts} parts ({parts.method})")
        degree = (
            degrees(dataset.train, "user", dataset.users.count, rows),
            degrees(dataset.train, "item", dataset.items.count, rows),
        )
        ends = ((chunk["user"], chunk["item"]) for chunk in dataset.train.chunks(rows, ["user", "item"]))
        pairs = ((user.astype(np.int64), item.astype(np.int64)) for user, item in ends)
        part_of_raw = assign_nodes(pairs, degree, parts, seed, work, progress)
        labels = relabel(part_of_raw, dataset.users.count, parts.num_parts)
        with atomic_folder(Path(data.prepared)) as folder:
            writer = ShardWriter(folder, work, labels, rows, progress)
            report = {"name": name, **_write(writer, engine, dataset, data, parts)}
            progress("checking what was written")
            write_manifest(folder, FORMAT, VERSION, {**report, MADE_FROM: made})
    return report


@contextmanager
def _work_folder(target: Path, made: Mapping[str, Any] | None) -> Iterator[Path]:
    """A folder beside `target` for what is read, which vanishes at the end.

    made: what the data set is made from; an earlier run of the same that was killed has left the passes that it had
    finished. None: they can't be known again.
    """
    target = Path(target.absolute())
    work = target.with_name(f".{target.name}.work")
    with lock_run(work):
        record = work / "made_from.json"
        if made is None or not record.exists() or record.read_text(encoding="utf-8") != to_json(made):
            for path in work.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK_FILE:
                    path.unlink()
            if made is not None:
                write_text(record, to_json(made))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _write(
    writer: ShardWriter, engine: Engine, dataset: Dataset, data: DataConfig, parts: PartsConfig
) -> dict[str, Any]:
    labels, schema = writer.labels, schema_of(dataset)
    nodes = {INTERACTS.source: dataset.users, INTERACTS.target: dataset.items}
    for kind, own in nodes.items():
        writer.ids(engine, kind, own, dataset.titles if kind == INTERACTS.target else None)
    counts: dict[str, dict[str, list[int]]] = {}
    for split in SPLITS:
        writer.progress(f"writing {split} pairs")
        edges: EdgeFile = getattr(dataset, split)
        counts.setdefault(INTERACTS.name, {})[split] = writer.splits(INTERACTS.name, split, edges, dataset.train.labels)
        for relation, more in dataset.relations.items():
            own_edges = more if split == "train" else None
            counts.setdefault(relation, {})[split] = writer.splits(relation, split, own_edges, more.labels)
    carrying = [dataset.train, *(e for relation, e in dataset.relations.items() if data.relations[relation].messages)]
    mass, num_to_items = writer.messages(carrying, data.min_message_weight, schema.relations)
    writer.features(dataset)
    names = [relation.name for relation in schema.relations]
    totals = {split: sum(of_parts) for split, of_parts in counts[INTERACTS.name].items()}
    return {
        "schema": schema.to_plain(),
        "num_nodes": {kind: labels.ranges.count(kind) for kind in INTERACTIONS.node_types},
        "split_counts": counts,
        "labels": describe_labels(dataset),
        "popularity_mass": dict.fromkeys(names, mass),
        "target_messages": dict.fromkeys(names, num_to_items),
        "feature_sizes": {kind: table.values.shape[1] for kind, table in dataset.features.items()},
        "features": {
            kind: {"columns": t.columns, "mean": t.mean, "deviation": t.deviation, "nodes_with_a_row": t.num_found}
            for kind, t in dataset.features.items()
        },
        "dropped": dataset.dropped,
        **dataset.notes,
        "warnings": [*dataset.warnings, *held_out_warnings(data, totals, dataset.dropped)],
        "partition": {"method": parts.method, **partition_quality(dataset.train, labels, writer.rows)},
        "bounds": labels.ranges.bounds.tolist(),
    }


def relabel(part_of_raw: np.ndarray, num_users: int, num_parts: int) -> Relabelling:
    """Order raw nodes by (part, type, raw number) and number them; empty types in a part are allowed."""
    num_raw = len(part_of_raw)
    type_of_raw = (np.arange(num_raw) >= num_users).astype(np.int64)
    num_types = len(INTERACTIONS.node_types)
    group = part_of_raw * num_types + type_of_raw
    node_of_raw = np.empty(num_raw, dtype=np.int64)
    node_of_raw[np.argsort(group, kind="stable")] = np.arange(num_raw)
    ends = np.cumsum(np.bincount(group, minlength=num_parts * num_types))
    starts = np.concatenate([[0], ends[:-1]]).reshape(num_parts, num_types)
    bounds = np.concatenate([starts, ends.reshape(num_parts, num_types)[:, -1:]], axis=1)
    return Relabelling(node_of_raw[:num_users], node_of_raw[num_users:], NodeRanges(bounds, INTERACTIONS.node_types))


def partition_quality(train: EdgeFile, labels: Relabelling, rows: int = BLOCK_ROWS) -> dict[str, Any]:
    """Share of interactions whose ends lie in two parts, and the largest part over the mean (1 is even)."""
    ranges = labels.ranges
    part_of = [ranges.part_of(nodes) for nodes in (labels.user, labels.item)]
    edges_of_part, num_cut = np.zeros(ranges.num_parts, np.int64), 0
    for chunk in train.chunks(rows):
        user_part, item_part = part_of[0][chunk["user"]], part_of[1][chunk["item"]]
        edges_of_part += np.bincount(user_part, minlength=ranges.num_parts)
        edges_of_part += np.bincount(item_part, minlength=ranges.num_parts)
        num_cut += int(np.count_nonzero(user_part != item_part))
    nodes_of_part = np.diff(ranges.starts)
    return {
        "edge_cut": num_cut / train.count,
        "node_balance": float(nodes_of_part.max() / nodes_of_part.mean()),
        "edge_balance": float(edges_of_part.max() / edges_of_part.mean()),
    }


def describe_labels(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """By relation and label."""
    relations = {INTERACTS.name: (dataset.train, [dataset.valid, dataset.test])}
    relations |= {name: (edges, []) for name, edges in dataset.relations.items()}
    return {
        name: {label: describe(train, held_out, label) for label in train.labels}
        for name, (train, held_out) in relations.items()
    }


def describe(train: EdgeFile, held_out: list[EdgeFile], label: str) -> dict[str, Any]:
    """What a task wants to know of the labels of all training pairs.

    Where they are few, `levels` has those of any split, and `counts` how many training pairs have each.
    """
    sums, smallest, largest = [], math.inf, -math.inf
    counts: dict[float, int] = {}
    for edges in (train, *held_out):
        for chunk in edges.chunks(BLOCK_ROWS):
            values = chunk[label].astype(np.float64)
            if edges is train and len(values):
                sums.append(float(values.sum()))
                smallest, largest = min(smallest, float(values.min())), max(largest, float(values.max()))
            if len(counts) <= MAX_LEVELS:
                for level, count in zip(*np.unique(values, return_counts=True), strict=True):
                    counts[float(level)] = counts.get(float(level), 0) + (int(count) if edges is train else 0)
    found: dict[str, Any] = {"mean": math.fsum(sums) / train.count, "min": smallest, "max": largest}
    if len(counts) <= MAX_LEVELS:
        levels = sorted(counts)
        found |= {"levels": levels, "counts": [counts[level] for level in levels]}
    return found


def schema_of(dataset: Dataset) -> Schema:
    """That of a table of interactions, with its further relations."""
    more = [Relation(name, INTERACTS.source, INTERACTS.target) for name in dataset.relations]
    return Schema(INTERACTIONS.node_types, (INTERACTS, *more))
