"""`inspect_prepared`: what is in a prepared folder, in numbers.

Arrays of parts are read block by block; what stays in memory is a byte a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from dist_gat.base.plural import plural
from dist_gat.data.column_layout import TOKENS, WEIGHTS, Layout
from dist_gat.graph.part import SPLITS, Part, PreparedGraph

BLOCK = 1 << 22  # edges that are looked at together
MAX_COLUMNS = 16  # of a node type, that people are told of
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def inspect_prepared(prepared: PreparedGraph, progress: Callable[[str], None] = lambda message: None) -> dict[str, Any]:
    """Counts, degrees, cold and isolated nodes, labels, times and parts, as JSON data.

    `degrees` by node type: `histogram` has `first` and `last` of a bin, in powers of two, and how many `nodes` have so
    many messages; `isolated` have none. `cold` by node type: how many `nodes` have held-out pairs and no training pair
    of any relation, and how many `pairs` of a split they are in. `parts`: `remote` is the share of a part's messages
    that come from others. What the manifest of an older version lacks is None. Raises `StorageError`.
    """
    manifest, kinds = prepared.manifest, prepared.schema.node_types
    histograms = {kind: np.zeros(65, np.int64) for kind in kinds}
    largest = dict.fromkeys(kinds, 0)
    received = dict.fromkeys(kinds, 0)
    parts: list[dict[str, Any]] = []
    times: list[tuple[int, int]] = []
    for part in prepared.parts:
        progress(f"looking at messages of part {part.number + 1} of {len(prepared.parts)}")
        for kind in kinds:
            degree = _degrees(part, kind)
            histograms[kind] += _histogram(degree)
            largest[kind] = max(largest[kind], int(degree.max(initial=0)))
            received[kind] += int(degree.sum())
        times += _times(prepared, part)
        parts.append(_describe_part(prepared, part))
    progress("looking for cold nodes")
    return {
        "name": manifest.get("name"),
        "folder": str(prepared.folder),
        "fingerprint": prepared.fingerprint,
        "num_nodes": {kind: prepared.ranges.count(kind) for kind in kinds},
        "columns": describe_columns(prepared.layouts),
        "pairs": {
            relation.name: {split: prepared.num_pairs(relation, split) for split in SPLITS}
            for relation in prepared.schema.relations
            if relation.has_pairs
        },
        "edges": manifest.get("edges"),
        "messages": sum(received.values()),
        "repeated": manifest.get("repeated"),
        "degrees": {
            kind: {
                "isolated": int(histograms[kind][0]),
                "mean": received[kind] / max(prepared.ranges.count(kind), 1),
                "max": largest[kind],
                "histogram": _bins(histograms[kind]),
            }
            for kind in kinds
        },
        "cold": _cold(prepared),
        "labels": manifest["labels"],
        "time": _span(times),
        "parts": parts,
        "partition": manifest.get("partition"),
        "dropped": manifest.get("dropped", {}),
        "warnings": manifest.get("warnings", []),
    }


def _degrees(part: Part, kind: str) -> np.ndarray:
    """int64: how many messages each node of a type receives."""
    nodes = part.ranges.nodes_of_type(part.number, kind)
    return np.diff(part.node_starts[nodes.start - part.first_node : nodes.stop - part.first_node + 1])


def _histogram(degree: np.ndarray) -> np.ndarray:
    """int64 [65]: how many are 0, 1, 2 to 3, 4 to 7 and so on."""
    return np.bincount(np.searchsorted(2 ** np.arange(63), degree, side="right"), minlength=65)


def _bins(histogram: np.ndarray) -> list[dict[str, int]]:
    """Up to the last bin that has nodes."""
    used = int(np.flatnonzero(histogram).max(initial=0)) + 1
    return [
        {"first": 2 ** (bit - 1) if bit else 0, "last": 2**bit - 1, "nodes": int(histogram[bit])} for bit in range(used)
    ]


def _describe_part(prepared: PreparedGraph, part: Part) -> dict[str, Any]:
    first, stop = part.first_node, part.first_node + part.num_nodes
    outside = sum(int(((block < first) | (block >= stop)).sum()) for block in _blocks(part.indices))
    relation = prepared.schema.relations[0]
    return {
        "part": part.number,
        "nodes": {kind: len(part.ranges.nodes_of_type(part.number, kind)) for kind in prepared.schema.node_types},
        "pairs": {split: part.num_pairs[relation.name][split] for split in SPLITS},
        "messages": len(part.indices),
        "remote": outside / len(part.indices) if len(part.indices) else None,
    }


def _times(prepared: PreparedGraph, part: Part) -> list[tuple[int, int]]:
    """The first and last time of a part's pairs, in microseconds; nothing where there are none."""
    timed = [relation for relation in prepared.schema.relations if relation.has_pairs and "time" in relation.columns]
    found = [part.times(relation, split) for relation in timed for split in SPLITS]
    return [(int(block.min()), int(block.max())) for times in found for block in _blocks(times) if len(block)]


def _span(times: list[tuple[int, int]]) -> dict[str, str] | None:
    """In ISO 8601, as UTC."""
    if not times:
        return None
    ends = {"first": min(first for first, _ in times), "last": max(last for _, last in times)}
    return {name: (EPOCH + timedelta(microseconds=at)).isoformat() for name, at in ends.items()}


def describe_columns(layouts: Mapping[str, Layout]) -> dict[str, dict[str, dict[str, Any]]]:
    """By node type and name: the kind, how many nodes have a value, and how many categories there are. Tokens are those
    of a text, which is there."""
    return {
        kind: {
            column.name: {"kind": column.kind, "nodes": column.num_values, "categories": column.num_categories}
            for column in layout
            if column.kind not in (TOKENS, WEIGHTS)
        }
        for kind, layout in layouts.items()
    }


def repeated_in_words(repeated: Mapping[str, Any]) -> list[str]:
    """For people, by relation: how many rows had a pair that another row has, and what became of their values."""
    told = []
    for relation, found in repeated.items():
        rules = ", ".join(f"{label} {rule}" for label, rule in found["rules"].items())
        told.append(
            f"{found['rows']:,} rows of {relation} had a pair again, which stays once" + (rules and f": {rules}")
        )
    return told


def columns_in_words(columns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """For people, by node type: names of columns, and how many nodes have each; of many of them the first."""
    told = []
    for kind, of_type in columns.items():
        for name, column in list(of_type.items())[:MAX_COLUMNS]:
            of = f", {column['categories']:,} categories" if column["categories"] else ""
            told.append((f"{name} of {plural(kind)}", f"{column['nodes']:,} nodes{of}"))
        if len(of_type) > MAX_COLUMNS:
            told.append((f"more columns of {plural(kind)}", f"{len(of_type) - MAX_COLUMNS:,}"))
    return told


def _cold(prepared: PreparedGraph) -> dict[str, dict[str, Any]]:
    is_trained = np.zeros(prepared.ranges.num_nodes, np.bool_)
    for _, pairs in _pairs(prepared, "train"):
        is_trained[pairs] = True
    is_cold = np.zeros(prepared.ranges.num_nodes, np.bool_)
    kinds = prepared.schema.node_types
    cold_pairs = {kind: dict.fromkeys(SPLITS[1:], 0) for kind in kinds}
    for split in SPLITS[1:]:
        for ends, pairs in _pairs(prepared, split):
            cold = ~is_trained[pairs]
            is_cold[pairs[cold]] = True
            for kind, of_end in zip(ends, cold.T, strict=True):
                cold_pairs[kind][split] += int(of_end.sum())
    nodes = {
        kind: sum(int(is_cold[first:stop].sum()) for first, stop in prepared.ranges.bounds_of(kind)) for kind in kinds
    }
    return {kind: {"nodes": nodes[kind], "pairs": cold_pairs[kind]} for kind in kinds}


def _pairs(prepared: PreparedGraph, split: str) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """The types of both ends, and int64 [m, 2] of nodes: block by block."""
    for relation in (relation for relation in prepared.schema.relations if relation.has_pairs):
        for part in prepared.parts:
            for block in _blocks(part.pairs(relation, split)):
                yield (relation.source, relation.target), block


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), BLOCK):
        yield values[start : start + BLOCK]
