"""`prepare`: interactions in, a folder of checksummed, node-ID-sharded parts out.

The engine reads, checks, encodes and sorts; the rest are passes over sorted edges on disk. Memory grows with the nodes
alone, and the files depend neither on it nor on threads and chunks.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
from dist_gat.data.column_layout import to_plain
from dist_gat.data.dataset import WEIGHT, Dataset, chunk_rows, load_dataset
from dist_gat.data.distinct_pairs import Repeats
from dist_gat.data.edge_file import EdgeFile, degrees
from dist_gat.data.engine import Engine, Tasks
from dist_gat.data.pseudonyms import Pseudonyms
from dist_gat.data.relations import Edges
from dist_gat.graph.assign import Graph, assign_nodes
from dist_gat.graph.fennel import Chunks
from dist_gat.graph.held_out import held_out_warnings
from dist_gat.graph.hide_ids import check_pseudonyms, reasons_withheld
from dist_gat.graph.made_from import encoders_of, made_from
from dist_gat.graph.part import FORMAT, MADE_FROM, SPLITS, VERSION
from dist_gat.graph.pruning import without_doubtful
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import COLUMNS, INTERACTIONS, Relation, Schema
from dist_gat.graph.shards import Relabelling, ShardWriter
from dist_gat.text.model_files import find_model

(INTERACTS,) = INTERACTIONS.relations
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
    pseudonyms: Pseudonyms | None = None,
) -> dict[str, Any]:
    """Write `data.prepared` and return the report that its manifest keeps.

    tables: data frames, by the names that the recipe has for files. rows: of a chunk, by default what fits in memory.
    tasks: for the passes that read and sort, by default in this process. pseudonyms: what external IDs become; no
    message or file has one then.
    The folder appears whole or not at all. Raises `DataError` on bad input.
    """
    refuse_foreign_folder(Path(data.prepared), FORMAT, "data.prepared", "dist-gat prepare")
    for encoder in data.encoders:
        find_model(encoder)  # or it is refused before a table is read
    check_pseudonyms(data, pseudonyms)
    made = made_from(data, parts, seed)  # first, so that a table that changes meanwhile is another one
    hidden = {} if pseudonyms is None else {"pseudonyms": pseudonyms.fingerprint}
    memory = int(data.memory_gb * 1e9) if data.memory_gb else free_memory() // 2
    with (
        _work_folder(Path(data.prepared), None if tables else made | hidden) as work,
        Engine(work, memory, progress, tasks=tasks, pseudonyms=pseudonyms) as engine,
        reasons_withheld(pseudonyms),
    ):
        rows = rows or chunk_rows(memory)
        dataset = load_dataset(engine, data, seed, tables, rows)
        smallest = min(dataset.users.count, dataset.items.count)
        if parts.num_parts > smallest:
            raise ConfigError(
                f"parts.num_parts={parts.num_parts} exceeds the {smallest} nodes of the smaller node type; choose fewer"
            )
        num_nodes = sum(nodes.count for nodes in dataset.nodes.values())
        progress(f"assigning {num_nodes:,} nodes to {parts.num_parts} parts ({parts.method})")
        part_of_raw = assign_nodes(graph_of(dataset, rows), parts, seed, work, progress)
        labels = relabel(part_of_raw, {kind: nodes.count for kind, nodes in dataset.nodes.items()}, parts.num_parts)
        with atomic_folder(Path(data.prepared)) as folder:
            writer = ShardWriter(folder, work, labels, rows, progress)
            report = {"name": name, **_write(writer, engine, dataset, data, parts), **hidden}
            if pseudonyms is not None and report["warnings"]:
                report["warnings"] = [f"{len(report['warnings'])} warnings are withheld, since they may quote IDs"]
            progress("checking what was written")
            # an encoder of the hub is here by now
            write_manifest(folder, FORMAT, VERSION, {**report, MADE_FROM: {**made, "encoders": encoders_of(data)}})
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
    labels, schema = writer.labels, schema_of(dataset, data)
    for kind, nodes in dataset.nodes.items():
        writer.ids(engine, kind, nodes, dataset.titles if kind == INTERACTS.target else None)
    edges = {INTERACTS.name: dataset.train} | {name: own.file for name, own in dataset.relations.items()}
    counts: dict[str, dict[str, list[int]]] = {}
    for relation in schema.relations:
        if relation.has_pairs:
            own = edges[relation.name]
            columns = [*own.labels, *(["time"] if own.has_time else [])]
            for split in SPLITS:
                writer.progress(f"writing {split} pairs of {relation.name}")
                chosen = own if split == "train" else None
                chosen = getattr(dataset, split) if relation.name == INTERACTS.name else chosen
                counts.setdefault(relation.name, {})[split] = writer.splits(relation, split, chosen, columns)
    pruned: dict[str, Any] = {}
    if data.prune is not None:
        kept, pruned["pruned"] = without_doubtful(
            dataset.train, writer.work / "pruned", dataset.items.count, data.prune, data.min_message_weight,
            writer.rows, writer.progress,
        )  # fmt: skip
    carrying = {**edges, INTERACTS.name: kept} if pruned else edges
    mass, to_targets = writer.messages(schema, carrying, data.min_message_weight)
    writer.columns(dataset)
    cold: dict[str, Any] = {}
    if dataset.cold.items is not None:
        cold[INTERACTS.target] = writer.cold_items(dataset.cold.items, INTERACTS.target)
    if dataset.cold.users is not None:
        cold[INTERACTS.source] = {
            split: writer.cold_users(engine, dataset.users.vocabulary, split, dataset.cold)
            for split in dataset.cold.pairs
        }
    totals = {split: sum(of_parts) for split, of_parts in counts[INTERACTS.name].items()}
    quality = {
        relation.name: partition_quality(edges[relation.name], relation, labels, writer.rows)
        for relation in schema.relations
    }
    nodes_of_part = np.diff(labels.ranges.starts)
    return {
        "schema": schema.to_plain(),
        "num_nodes": {kind: labels.ranges.count(kind) for kind in schema.node_types},
        "split_counts": counts,
        "labels": describe_labels(dataset, schema),
        "edges": {name: file.count for name, file in edges.items()},
        "weights": {name: weights_of(edges[name]) for name in edges if WEIGHT in edges[name].labels},
        "popularity_mass": mass,
        "target_messages": to_targets,
        **({"cold": cold} if cold else {}),
        **pruned,
        "columns": {kind: to_plain(table.layout) for kind, table in dataset.columns.items()},
        "dropped": dataset.dropped,
        **dataset.notes,
        "warnings": [*dataset.warnings, *held_out_warnings(data, totals, dataset.dropped)],
        "partition": {
            "method": parts.method,
            **quality[INTERACTS.name],
            "node_balance": float(nodes_of_part.max() / nodes_of_part.mean()),
            "relations": {name: quality[name] for name in dataset.relations},
        },
        "bounds": labels.ranges.bounds.tolist(),
    }


def graph_of(dataset: Dataset, rows: int) -> Graph:
    """What parts are made for: the interactions, and the edges of all relations."""
    kinds, sizes = list(dataset.nodes), [nodes.count for nodes in dataset.nodes.values()]
    degree = [np.zeros(size, np.int64) for size in sizes]
    edges = []
    for own in [Edges(INTERACTS.source, INTERACTS.target, (), dataset.train, Repeats({})), *dataset.relations.values()]:
        ends = kinds.index(own.source), kinds.index(own.target)
        for end, kind in zip(("source", "target"), ends, strict=True):
            degree[kind] = degree[kind] + degrees(own.file, end, sizes[kind], rows)
        edges.append((*ends, partial(_ends_of, own.file, rows)))
        if len(edges) == 1:
            of_interactions = degree[0].copy(), degree[1].copy()
    return Graph(sizes, edges, degree, of_interactions)


def _ends_of(edges: EdgeFile, rows: int) -> Chunks:
    for chunk in edges.chunks(rows, ["source", "target"]):
        yield chunk["source"].astype(np.int64), chunk["target"].astype(np.int64)


def relabel(part_of_raw: np.ndarray, sizes: Mapping[str, int], num_parts: int) -> Relabelling:
    """Order raw nodes by (part, type, raw number) and number them; empty types in a part are allowed."""
    type_of_raw = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    group = part_of_raw * len(sizes) + type_of_raw
    node_of_raw = np.empty(len(part_of_raw), dtype=np.int64)
    node_of_raw[np.argsort(group, kind="stable")] = np.arange(len(part_of_raw))
    ends = np.cumsum(np.bincount(group, minlength=num_parts * len(sizes)))
    starts = np.concatenate([[0], ends[:-1]]).reshape(num_parts, len(sizes))
    bounds = np.concatenate([starts, ends.reshape(num_parts, len(sizes))[:, -1:]], axis=1)
    of_types = np.split(node_of_raw, np.cumsum(list(sizes.values()))[:-1])
    return Relabelling(dict(zip(sizes, of_types, strict=True)), NodeRanges(bounds, tuple(sizes)))


def partition_quality(
    edges: EdgeFile, relation: Relation, labels: Relabelling, rows: int = BLOCK_ROWS
) -> dict[str, float]:
    """Share of a relation's edges whose ends lie in two parts, and the largest part over the mean (1 is even)."""
    ranges = labels.ranges
    part_of = [ranges.part_of(labels.nodes[kind]) for kind in (relation.source, relation.target)]
    edges_of_part, num_cut = np.zeros(ranges.num_parts, np.int64), 0
    for chunk in edges.chunks(rows):
        source_part, target_part = part_of[0][chunk["source"]], part_of[1][chunk["target"]]
        edges_of_part += np.bincount(source_part, minlength=ranges.num_parts)
        edges_of_part += np.bincount(target_part, minlength=ranges.num_parts)
        num_cut += int(np.count_nonzero(source_part != target_part))
    return {
        "edge_cut": num_cut / edges.count,
        "edge_balance": float(edges_of_part.max() / edges_of_part.mean()),
    }


def weights_of(edges: EdgeFile) -> dict[str, float]:
    """Mean and deviation of the weights w of a relation's edges, with which the model standardises them, and of
    log(1 + w), where a w below 0 counts as 0.
    """
    sums: list[list[float]] = []
    for chunk in edges.chunks(BLOCK_ROWS):
        weights = chunk[WEIGHT].astype(np.float64)
        logs = np.log1p(np.maximum(weights, 0))
        sums.append([float(values.sum()) for values in (weights, weights**2, logs, logs**2)])
    mean, square, log_mean, log_square = (math.fsum(column) / edges.count for column in zip(*sums, strict=True))
    return {
        "mean": mean, "deviation": math.sqrt(max(square - mean**2, 0.0)),
        "log_mean": log_mean, "log_deviation": math.sqrt(max(log_square - log_mean**2, 0.0)),
    }  # fmt: skip


def describe_labels(dataset: Dataset, schema: Schema) -> dict[str, dict[str, Any]]:
    """By relation with pairs, and label."""
    relations = {INTERACTS.name: (dataset.train, [dataset.valid, dataset.test])}
    relations |= {one.name: (dataset.relations[one.name].file, []) for one in schema.relations[1:] if one.has_pairs}
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


def schema_of(dataset: Dataset, data: DataConfig) -> Schema:
    """That of a table of interactions, with its further relations."""
    relations = [replace(INTERACTS, columns=_columns_of(dataset.train))]
    for name, edges in dataset.relations.items():
        config = data.relations[name.partition("-")[0]]  # a piece is named after its relation
        relations.append(
            Relation(
                name, edges.source, edges.target, config.has_pairs, config.messages, config.directed,
                _columns_of(edges.file), edges.categories,
            )
        )  # fmt: skip
    return Schema(tuple(dataset.nodes), tuple(relations))


def _columns_of(edges: EdgeFile) -> tuple[str, ...]:
    return tuple(name for name in COLUMNS if name in edges.types)
