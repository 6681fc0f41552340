"""`prepare`: interactions in, a folder of checksummed, node-ID-sharded parts out.

Every step is vectorised; peak memory is a small multiple of the edge list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dist_gat.base.errors import ConfigError
from dist_gat.base.pairs import order_of_pairs, sort_pairs
from dist_gat.base.storage import atomic_folder, refuse_foreign_folder, save_array, write_manifest
from dist_gat.config.sections import DataConfig, PartsConfig
from dist_gat.data.dataset import WEIGHT, Dataset, Edges, load_dataset
from dist_gat.graph.assign import assign_nodes
from dist_gat.graph.held_out import held_out_warnings
from dist_gat.graph.made_from import made_from
from dist_gat.graph.part import FORMAT, MADE_FROM, SPLITS, VERSION, part_folder
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import INTERACTIONS, Relation, Schema

POPULARITY_EXPONENT = 0.75
# as many as a scale of ratings may have; more are a count or a measurement
MAX_LEVELS = 100
(INTERACTS,) = INTERACTIONS.relations


@dataclass(frozen=True)
class Relabelling:
    """From dense indices of each type to node IDs: int64 [U] and int64 [I]."""

    user: np.ndarray
    item: np.ndarray
    ranges: NodeRanges

    @property
    def nodes(self) -> dict[str, np.ndarray]:
        """By node type."""
        return {INTERACTS.source: self.user, INTERACTS.target: self.item}


def prepare_dataset(
    name: str,
    data: DataConfig,
    parts: PartsConfig,
    seed: int,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write `data.prepared` and return the report that its manifest keeps.

    The folder appears whole or not at all. Raises `DataError` on bad input.
    """
    refuse_foreign_folder(Path(data.prepared), FORMAT, "data.prepared", "dist-gat prepare")
    made = made_from(data, parts, seed)  # first, so that a table that changes meanwhile is another one
    progress("reading interactions")
    dataset = load_dataset(data, seed)
    smallest = min(len(dataset.users), len(dataset.items))
    if parts.num_parts > smallest:
        raise ConfigError(
            f"parts.num_parts={parts.num_parts} exceeds the {smallest} nodes of the smaller node type; choose fewer"
        )
    progress(f"assigning {len(dataset.users) + len(dataset.items):,} nodes to {parts.num_parts} parts ({parts.method})")
    carrying = _carrying_messages(dataset, data)
    part_of_raw = assign_nodes(dataset.train, len(dataset.users), len(dataset.items), parts, seed)
    labels = relabel(part_of_raw, len(dataset.users), parts.num_parts)
    progress("writing parts")
    with atomic_folder(Path(data.prepared)) as folder:
        _write_ids(folder, dataset, labels)
        schema = schema_of(dataset)
        messages = _in_edges(carrying, labels)
        sorted_already = carrying is dataset.train and set(dataset.train.labels) <= {WEIGHT}
        split_counts = _write_splits(folder, dataset, labels, messages[0] if sorted_already else None)
        mass = _write_messages(folder, messages, labels.ranges, schema)
        names = [relation.name for relation in schema.relations]
        _write_features(folder, dataset, labels)
        report = {
            "name": name,
            "schema": schema.to_plain(),
            "num_nodes": {kind: labels.ranges.count(kind) for kind in INTERACTIONS.node_types},
            "split_counts": split_counts,
            "labels": _describe_labels(dataset),
            "popularity_mass": dict.fromkeys(names, mass),
            "target_messages": dict.fromkeys(names, len(messages[1].dst)),
            "feature_sizes": {kind: values.shape[1] for kind, values in dataset.features.items()},
            "dropped": dataset.dropped,
            "warnings": held_out_warnings(data, _totals(split_counts[INTERACTS.name]), dataset.dropped),
            "partition": {"method": parts.method, **partition_quality(dataset.train, labels)},
            "bounds": labels.ranges.bounds.tolist(),
        }
        write_manifest(folder, FORMAT, VERSION, {**report, MADE_FROM: made})
    return report


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


def partition_quality(train: Edges, labels: Relabelling) -> dict[str, Any]:
    """Share of interactions whose ends lie in two parts, and the largest part over the mean (1 is even)."""
    ranges = labels.ranges
    user_part, item_part = ranges.part_of(labels.user[train.user]), ranges.part_of(labels.item[train.item])
    edges_of_part = np.bincount(np.concatenate([user_part, item_part]), minlength=ranges.num_parts)
    nodes_of_part = np.diff(ranges.starts)
    return {
        "edge_cut": float(np.mean(user_part != item_part)),
        "node_balance": float(nodes_of_part.max() / nodes_of_part.mean()),
        "edge_balance": float(edges_of_part.max() / edges_of_part.mean()),
    }


def _totals(counts: dict[str, list[int]]) -> dict[str, int]:
    return {split: sum(of_parts) for split, of_parts in counts.items()}


def _describe_labels(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """By relation and label."""
    splits: dict[str, tuple[Edges, ...]] = {INTERACTS.name: (dataset.train, dataset.valid, dataset.test)}
    splits |= {name: (edges,) for name, edges in dataset.relations.items()}
    return {
        name: {
            label: describe(values, [edges.labels[label] for edges in held_out if label in edges.labels])
            for label, values in train.labels.items()
        }
        for name, (train, *held_out) in splits.items()
    }


def describe(labels: np.ndarray, held_out: Sequence[np.ndarray]) -> dict[str, Any]:
    """What a task wants to know of the labels of all training pairs.

    Where they are few, `levels` has those of any split, and `counts` how many training pairs have each.
    """
    wide = labels.astype(np.float64)
    found: dict[str, Any] = {"mean": float(wide.mean()), "min": float(wide.min()), "max": float(wide.max())}
    # by hashing, since sorting all labels would take longer than the rest of writing them
    levels = pl.Series(np.concatenate([labels, *held_out])).unique().sort().to_numpy().astype(np.float64)
    if len(levels) <= MAX_LEVELS:
        counts = np.bincount(np.searchsorted(levels, wide), minlength=len(levels))
        found |= {"levels": levels.tolist(), "counts": counts.tolist()}
    return found


def _write_ids(folder: Path, dataset: Dataset, labels: Relabelling) -> None:
    (folder / "ids").mkdir()
    external, titles = {INTERACTS.source: dataset.users, INTERACTS.target: dataset.items}, {}
    if dataset.titles is not None:
        titles[INTERACTS.target] = dataset.titles
    for kind, nodes in labels.nodes.items():
        table = pl.DataFrame({"external_id": external[kind], "node_id": nodes})
        if kind in titles:
            table = table.with_columns(titles[kind].alias("title"))
        table.write_parquet(folder / "ids" / f"{kind}.parquet")


@dataclass(frozen=True)
class _InEdges:
    """Messages to one node type, sorted by `dst`, int64 [E]. values: sources, as `indices`, and attributes."""

    dst: np.ndarray
    values: dict[str, np.ndarray]


def _in_edges(train: Edges, labels: Relabelling) -> list[_InEdges]:
    """The messages to users and those to items."""
    user, item = labels.user[train.user], labels.item[train.item]
    attributes = {"edge_weight": train.weight, "edge_time": train.time}
    given = {name: values for name, values in attributes.items() if values is not None}
    messages = []
    for dst, src in ((user, item), (item, user)):
        if given:
            order = order_of_pairs(dst, src)
            values = {name: of_edge[order] for name, of_edge in given.items()}
            messages.append(_InEdges(dst[order], {"indices": src[order], **values}))
        else:
            dst, src = sort_pairs(dst, src)
            messages.append(_InEdges(dst, {"indices": src}))
    return messages


def schema_of(dataset: Dataset) -> Schema:
    """That of a table of interactions, with its further relations."""
    more = [Relation(name, INTERACTS.source, INTERACTS.target) for name in dataset.relations]
    return Schema(INTERACTIONS.node_types, (INTERACTS, *more))


def _carrying_messages(dataset: Dataset, data: DataConfig) -> Edges:
    """The pairs that carry messages, each once: training interactions and, without weight or time, other relations."""
    train = _of_weight(dataset.train, data.min_message_weight)
    more = [edges for name, edges in dataset.relations.items() if data.relations[name].messages]
    if not more:
        return train
    every = [train, *more]
    user, item = sort_pairs(*(np.concatenate([getattr(edges, end) for edges in every]) for end in ("user", "item")))
    is_new = np.append(True, (user[1:] != user[:-1]) | (item[1:] != item[:-1]))[: len(user)]
    return Edges(user[is_new], item[is_new])


def _of_weight(train: Edges, min_weight: float | None) -> Edges:
    """The interactions of at least a weight."""
    if min_weight is None or train.weight is None:
        return train
    some = train.weight >= min_weight
    time = None if train.time is None else train.time[some]
    return Edges(train.user[some], train.item[some], time, {WEIGHT: train.weight[some]})


def _sorted_pairs(edges: Edges, labels: Relabelling) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """User and item nodes by user and item, and the labels in this order."""
    user, item = labels.user[edges.user], labels.item[edges.item]
    if not edges.labels:
        return *sort_pairs(user, item), {}
    order = order_of_pairs(user, item)
    return user[order], item[order], {name: values[order] for name, values in edges.labels.items()}


def _write_splits(
    folder: Path, dataset: Dataset, labels: Relabelling, to_users: _InEdges | None
) -> dict[str, dict[str, list[int]]]:
    """Write and count the pairs of each relation and split, sorted by user and item, and their labels, the weight
    among them.

    to_users: the messages to users, where these are all training pairs, so that they need not be sorted again.
    """
    counts: dict[str, dict[str, list[int]]] = {}
    nothing = Edges(np.zeros(0, np.int64), np.zeros(0, np.int64))
    pairs = {(INTERACTS.name, split): getattr(dataset, split) for split in SPLITS}
    for name, edges in dataset.relations.items():
        empty = replace(nothing, labels={label: np.zeros(0, np.float32) for label in edges.labels})
        pairs |= {(name, split): edges if split == "train" else empty for split in SPLITS}
    for (relation, split), edges in pairs.items():
        if edges is dataset.train and to_users is not None:
            user, item, given = to_users.dst, to_users.values["indices"], {}
            if "edge_weight" in to_users.values:
                given = {WEIGHT: to_users.values["edge_weight"]}
        else:
            user, item, given = _sorted_pairs(edges, labels)
        cuts = np.searchsorted(user, labels.ranges.starts)
        for part, (start, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            target = part_folder(folder, part) / relation
            save_array(target / f"{split}.npy", np.stack([user[start:stop], item[start:stop]], axis=1))
            for name, values in given.items():
                save_array(target / f"{split}_{name}.npy", values[start:stop])
        counts.setdefault(relation, {})[split] = np.diff(cuts).tolist()
    return counts


def _write_messages(folder: Path, messages: list[_InEdges], ranges: NodeRanges, schema: Schema) -> list[float]:
    """CSC of in-edges, both directions, with the edges' attributes in the same order.

    Returns the sum of degree ** 0.75 over the items of each part.
    """
    index_type = ranges.id_type
    popularity_mass = []
    for part in range(ranges.num_parts):
        target = part_folder(folder, part)
        first, items = int(ranges.starts[part]), ranges.nodes_of_type(part, INTERACTS.target)
        own = [
            slice(*np.searchsorted(edges.dst, ranges.bounds[part, kind : kind + 2]))
            for kind, edges in enumerate(messages)
        ]
        dst = np.concatenate([edges.dst[at] for edges, at in zip(messages, own, strict=True)])
        degree = np.bincount(dst - first, minlength=int(ranges.starts[part + 1]) - first)
        save_array(target / "indptr.npy", np.concatenate([[0], np.cumsum(degree)]))
        for name in messages[0].values:
            values = np.concatenate([edges.values[name][at] for edges, at in zip(messages, own, strict=True)])
            save_array(target / f"{name}.npy", values.astype(index_type) if name == "indices" else values)
        mass = degree[items.start - first : items.stop - first].astype(np.float64) ** POPULARITY_EXPONENT
        for relation in schema.relations:
            save_array(target / relation.name / "popularity.npy", np.cumsum(mass))
        popularity_mass.append(float(mass.sum()))
    return popularity_mass


def _write_features(folder: Path, dataset: Dataset, labels: Relabelling) -> None:
    for kind, values in dataset.features.items():
        nodes = labels.nodes[kind]
        row_of_node = np.full(labels.ranges.num_nodes, -1, dtype=np.int64)
        row_of_node[nodes] = np.arange(len(nodes))
        for part in range(labels.ranges.num_parts):
            owned = labels.ranges.nodes_of_type(part, kind)
            rows = row_of_node[owned.start : owned.stop]
            save_array(part_folder(folder, part) / "features" / f"{kind}.npy", values[rows])
