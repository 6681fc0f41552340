"""The files of the parts: pairs of each split and relation, messages as CSC, columns of nodes, IDs.

EdgeFile come and go in chunks; what stays in memory grows with the nodes alone. Shape legend: N nodes, P parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pa_parquet

from dist_gat.base.plural import plural
from dist_gat.base.storage import save_array
from dist_gat.config.task_sections import FIRST_RELATION
from dist_gat.data.cold_nodes import ColdNodes
from dist_gat.data.dataset import WEIGHT, Dataset
from dist_gat.data.edge_file import Columns, EdgeFile, degrees
from dist_gat.data.engine import Engine
from dist_gat.data.nodes import Nodes
from dist_gat.data.parquet import plain_text
from dist_gat.data.pseudonyms import SEALED
from dist_gat.data.vocabulary import Vocabulary
from dist_gat.graph.array_file import ArrayFile
from dist_gat.graph.part import COLD_USERS, EDGE_TYPES, POPULARITY_EXPONENT, SPLITS, part_folder
from dist_gat.graph.part_rows import rows_of_part
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import EdgeType, Relation, Schema
from dist_gat.graph.sorted_runs import newest_first, run_starts, sorted_edges


@dataclass(frozen=True)
class Relabelling:
    """nodes: from dense indices of each type to node IDs, int64."""

    nodes: dict[str, np.ndarray]
    ranges: NodeRanges

    @property
    def keeps_order(self) -> bool:
        """Whether node IDs of a type ascend with its indices."""
        return all(bool((np.diff(nodes) > 0).all()) for nodes in self.nodes.values())


@dataclass(frozen=True)
class ShardWriter:
    """folder: of the prepared data set; work: for runs of edges; rows: that are sorted at once."""

    folder: Path
    work: Path
    labels: Relabelling
    rows: int
    progress: Callable[[str], None]

    def splits(self, relation: Relation, split: str, edges: EdgeFile | None, columns: Sequence[str]) -> list[int]:
        """The pairs of a split by part, sorted by source and target, and their labels and times. Returns their number
        by part."""
        name = f"{relation.name}/{split}"
        names = {"pairs": name, **{column: f"{name}_{column}" for column in columns}}
        counts = np.zeros(self.labels.ranges.num_parts, np.int64)
        types = {"pairs": (np.dtype(np.int64), (2,)), "time": (np.dtype(np.int64), ())}
        chunks: Iterator[Columns] = iter(())
        if edges is not None:
            way = EdgeType(relation, relation.target, relation.source, True)
            chunks = self._renamed(edges, way, columns)
            if not self.labels.keeps_order:
                chunks = sorted_edges(chunks, run_starts(self._received(way, edges), self.rows), self.work / "pairs")
        with _PartFiles(self.folder, self.labels.ranges, names, types) as files:
            for part, own in files.by_part(chunks):
                pairs = np.stack([own["dst"], own["src"]], axis=1)
                files.append(part, {"pairs": pairs, **{column: own[column] for column in columns}})
                counts[part] += len(pairs)
        return [int(count) for count in counts]

    def messages(
        self, schema: Schema, edges: Mapping[str, EdgeFile], min_weight: float | None
    ) -> tuple[dict[str, list[float]], dict[str, int]]:
        """CSC of in-edges: a row of each node and edge type that leads to it, and what the edges carry.

        edges: by relation. min_weight: of interactions that carry messages. Returns, of relations with pairs, the sum
        of degree ** 0.75 over the targets of each part, and the number of messages to targets.
        """
        ranges = self.labels.ranges
        types = {"indices": ("src", np.dtype(ranges.id_type))}
        types |= {f"edge_{name}": (name, np.dtype(EDGE_TYPES[name])) for name in schema.edge_columns}
        of_types = [self._received(one, edges[one.relation.name]) for one in schema.edge_types]
        received = np.sum(of_types, axis=0)
        heads = [
            _Cut(self._messages_of(one, edges[one.relation.name], own, min_weight))
            for one, own in zip(schema.edge_types, of_types, strict=True)
        ]
        mass: dict[str, list[float]] = {}
        to_targets = dict.fromkeys((relation.name for relation in schema.relations if relation.has_pairs), 0)
        for part in range(ranges.num_parts):
            rows, degrees_of_rows = rows_of_part(ranges, schema, part), [np.zeros(0, np.int64)]
            with ExitStack() as stack:
                files = {
                    name: stack.enter_context(ArrayFile(part_folder(self.folder, part) / f"{name}.npy", kind))
                    for name, (_, kind) in types.items()
                }
                for kind in ranges.node_types:
                    slots, nodes = schema.into(kind), ranges.nodes_of_type(part, kind)
                    for first, last in itertools.pairwise(run_starts(received[nodes.start : nodes.stop], self.rows)):
                        own = [_joined(heads[slot].until(nodes.start + last)) for slot in slots]
                        degree_NS = np.zeros((last - first, len(slots)), np.int64)
                        for place, found in enumerate(own):
                            if found:
                                dst = found["dst"] - (nodes.start + first)
                                degree_NS[:, place] = np.bincount(dst, minlength=last - first)
                        degrees_of_rows.append(degree_NS.ravel())
                        for name, values in _interleaved(own, degree_NS, types).items():
                            files[name].append(values)
            indptr = np.concatenate([[0], np.cumsum(np.concatenate(degrees_of_rows))])
            save_array(part_folder(self.folder, part) / "indptr.npy", indptr)
            for relation in schema.relations:
                if relation.has_pairs:
                    degree = rows.degrees_of(indptr, ranges.index_of(relation.target))[:, 0]
                    running = np.cumsum(degree.astype(np.float64) ** POPULARITY_EXPONENT)
                    save_array(part_folder(self.folder, part) / relation.name / "popularity.npy", running)
                    mass.setdefault(relation.name, []).append(float(running[-1]) if len(running) else 0.0)
                    to_targets[relation.name] += int(degree.sum())
        return mass, to_targets

    def _received(self, way: EdgeType, edges: EdgeFile) -> np.ndarray:
        """int64 [nodes]: about how many messages each node gets along an edge type: repeats count too."""
        of_node = np.zeros(self.labels.ranges.num_nodes, np.int64)
        nodes = self.labels.nodes[way.target]
        ends = ("source", "target") if way.is_symmetric else ("source",) if way.backward else ("target",)
        for end in ends:
            of_node[nodes] += degrees(edges, end, len(nodes), self.rows)
        return of_node

    def _messages_of(
        self, way: EdgeType, edges: EdgeFile, received: np.ndarray, min_weight: float | None
    ) -> Iterator[Columns]:
        """The edges of a type sorted by destination, the newest first where they have times, each once.

        received: as `_received` gives.
        """
        relation = way.relation

        def chunks(some: Iterator[Columns] | None = None) -> Iterator[Columns]:
            for chunk in some or edges.chunks(self.rows):
                if min_weight is not None and relation.name == FIRST_RELATION and WEIGHT in chunk:
                    kept = chunk[WEIGHT] >= min_weight
                    chunk = {name: values[kept] for name, values in chunk.items()}
                own = self._ends(chunk, way) | {name: chunk[name] for name in relation.columns}
                yield own
                if way.is_symmetric:
                    turned = own | {"dst": own["src"], "src": own["dst"]}
                    if "category" in own:
                        turned["category"] = own["category"] + np.uint16(len(relation.categories))
                    yield turned

        self.progress(f"sorting messages of {relation.name} to {plural(way.target)}")
        if way.backward and not way.is_symmetric and self.labels.keeps_order:
            found = chunks(edges.whole_users(received[self.labels.nodes[way.target]], self.rows))
        else:
            name = f"to-{way.target}-{relation.name}"
            found = sorted_edges(chunks(), run_starts(received, self.rows), self.work / name)
        for own in found:
            if way.is_symmetric:
                own = without_repeats(own)
            yield newest_first(own) if "time" in own else own

    def _renamed(self, edges: EdgeFile, way: EdgeType, columns: Sequence[str]) -> Iterator[Columns]:
        for chunk in edges.chunks(self.rows):
            yield self._ends(chunk, way) | {column: chunk[column] for column in columns}

    def _ends(self, chunk: Columns, way: EdgeType) -> Columns:
        relation, nodes = way.relation, self.labels.nodes
        source, target = nodes[relation.source][chunk["source"]], nodes[relation.target][chunk["target"]]
        return {"dst": source, "src": target} if way.backward else {"dst": target, "src": source}

    def columns(self, dataset: Dataset) -> None:
        """What is known of nodes: a matrix a type and part, the names of categories by code, and reductions."""
        for kind, table in dataset.columns.items():
            nodes = self.labels.nodes[kind]
            row_of_node = np.full(self.labels.ranges.num_nodes, -1, dtype=np.int64)
            row_of_node[nodes] = np.arange(len(nodes))
            for part in range(self.labels.ranges.num_parts):
                owned = self.labels.ranges.nodes_of_type(part, kind)
                rows = row_of_node[owned.start : owned.stop]
                save_array(part_folder(self.folder, part) / "features" / f"{kind}.npy", table.values[rows])
            for name, categories in table.categories.items():
                path = self.folder / "categories" / kind / f"{name}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pa_parquet.write_table(plain_text(pl.DataFrame({"category": categories}).to_arrow()), path)
            for name, reduction in table.reductions.items():
                for array, values in reduction._asdict().items():
                    save_array(self.folder / "reductions" / kind / f"{name}.{array}.npy", values)

    def cold_items(self, split_of_item: np.ndarray, kind: str) -> dict[str, list[int]]:
        """`Part.cold` of each part, from the same by dense index. Returns the number of items by split and part."""
        nodes, ranges = self.labels.nodes[kind], self.labels.ranges
        of_node = np.zeros(ranges.num_nodes, np.uint8)
        of_node[nodes] = split_of_item
        counts: dict[str, list[int]] = {split: [] for split in SPLITS}
        for part in range(ranges.num_parts):
            owned = ranges.nodes_of_type(part, kind)
            own = of_node[owned.start : owned.stop]
            save_array(part_folder(self.folder, part) / "cold" / f"{kind}.npy", own)
            for number, split in enumerate(SPLITS):
                counts[split].append(int(np.count_nonzero(own == number)))
        return counts

    def cold_users(self, engine: Engine, users: Vocabulary, split: str, cold: ColdNodes) -> int:
        """What the cold users of a split have met: user_id, item, a node, and weight and time. Where there are columns
        of users, these, and `row`, that of each user among them. Returns their number."""
        edges = cold.pairs[split]
        own = edges.read(0, edges.count)
        distinct, place = np.unique(own["source"], return_inverse=True)
        names = pl.concat(list(users.ids(engine))).gather(distinct.astype(np.int64))
        columns: dict[str, Any] = {"user_id": names.gather(place), "item": self.labels.nodes["item"][own["target"]]}
        columns |= {name: own[name] for name in (WEIGHT, "time") if name in own}
        path = self.folder / COLD_USERS / f"{split}.parquet"
        path.parent.mkdir(exist_ok=True)
        if cold.columns is not None:
            columns["row"] = pl.Series(place)
            rows = np.searchsorted(np.flatnonzero(cold.is_measured), distinct)
            save_array(path.with_suffix(".npy"), cold.columns[rows])
        pl.DataFrame(columns).write_parquet(path)
        return len(distinct)

    def ids(self, engine: Engine, kind: str, nodes: Nodes, titles: np.ndarray | None) -> None:
        """external_id, node_id[, title][, sealed], sorted by external ID. sealed: what a pseudonym stands for."""
        path = self.folder / "ids" / f"{kind}.parquet"
        path.parent.mkdir(exist_ok=True)
        numbers, start, writer = self.labels.nodes[kind], 0, None
        # of a type whose nodes are all of another under other names, nothing is left
        none = pl.Series([], dtype=pl.String)
        sealed = nodes.ids(engine, SEALED)
        for ids in nodes.ids(engine) if len(numbers) else [none]:
            own = slice(start, start + len(ids))
            table = pl.DataFrame({"external_id": ids, "node_id": numbers[own]})
            if titles is not None:
                table = table.with_columns(pl.Series("title", titles[own].tolist(), dtype=pl.String))
            if engine.pseudonyms is not None and len(numbers):
                table = table.with_columns(next(sealed).alias(SEALED))
            found = plain_text(table.to_arrow())
            writer = writer or pa_parquet.ParquetWriter(path, found.schema, compression="zstd")
            writer.write_table(found)
            start = own.stop
        if writer is not None:
            writer.close()


class _PartFiles:
    """Arrays of one name in every part, written in the order of parts, one part's at a time."""

    def __init__(
        self,
        folder: Path,
        ranges: NodeRanges,
        names: dict[str, str],
        types: dict[str, tuple[np.dtype, tuple[int, ...]]],
    ) -> None:
        self.folder, self.ranges, self.names, self.types = folder, ranges, names, types
        self.part, self.stack, self.files = -1, ExitStack(), dict[str, ArrayFile]()

    def __enter__(self) -> _PartFiles:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self._move_to(self.ranges.num_parts)
        self.stack.close()

    def by_part(self, chunks: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
        """Pieces of sorted chunks, each of one part."""
        for chunk in chunks:
            cuts = np.searchsorted(chunk["dst"], self.ranges.starts)
            for part, (start, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
                if stop > start:
                    yield part, {name: values[start:stop] for name, values in chunk.items()}

    def append(self, part: int, rows: Columns) -> None:
        self._move_to(part)
        for name, values in rows.items():
            self.files[name].append(values)

    def _move_to(self, part: int) -> None:
        """Close the files of the part before, and leave empty ones in those between."""
        while self.part < part:
            self.stack.close()
            self.part += 1
            if self.part < self.ranges.num_parts:
                folder = part_folder(self.folder, self.part)
                self.files = {
                    key: self.stack.enter_context(
                        ArrayFile(folder / f"{name}.npy", *self.types.get(key, (np.dtype(np.float32), ())))
                    )
                    for key, name in self.names.items()
                }


class _Cut:
    """A stream of edges sorted by destination, taken up to one node after another."""

    def __init__(self, stream: Iterator[Columns]) -> None:
        self.stream, self.held = stream, dict[str, np.ndarray]()

    def until(self, node: int) -> Iterator[Columns]:
        """The next edges whose destination is below `node`."""
        while True:
            if not self.held:
                self.held = next(self.stream, {})
                if not self.held:
                    return
            cut = int(np.searchsorted(self.held["dst"], node))
            own = {name: values[:cut] for name, values in self.held.items()}
            rest = {name: values[cut:] for name, values in self.held.items()}
            self.held = rest if len(rest["dst"]) else {}
            if cut:
                yield own
            if self.held:
                return


def _joined(pieces: Iterator[Columns]) -> Columns:
    """All of them as one; nothing where there is none."""
    found = list(pieces)
    if len(found) < 2:
        return found[0] if found else {}
    return {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}


def _interleaved(
    own: list[Columns], degree_NS: np.ndarray, types: Mapping[str, tuple[str, np.dtype]]
) -> dict[str, np.ndarray]:
    """The edges of several types to the same nodes, node by node, with 0 where an edge lacks a column.

    own: of each type, sorted by node. degree_NS: how many of each type a node has.
    """
    if len(own) == 1:
        (found,) = own
        nothing = np.zeros(len(found["dst"]) if found else 0, np.uint8)
        return {name: found.get(column, nothing).astype(kind, copy=False) for name, (column, kind) in types.items()}
    start_NS = (np.cumsum(degree_NS) - degree_NS.ravel()).reshape(degree_NS.shape)
    out = {name: np.zeros(int(degree_NS.sum()), kind) for name, (_, kind) in types.items()}
    for place, found in enumerate(own):
        if found:
            count = degree_NS[:, place]
            at = np.repeat(start_NS[:, place] - (np.cumsum(count) - count), count) + np.arange(len(found["dst"]))
            for name, (column, _) in types.items():
                if column in found:
                    out[name][at] = found[column]
    return out


def without_repeats(edges: Columns) -> Columns:
    """Of sorted edges each once, with what the first of equal ones carries."""
    keys = [edges[name] for name in ("dst", "src", "category") if name in edges]
    is_new = np.append(True, np.any([key[1:] != key[:-1] for key in keys], axis=0))[: len(edges["dst"])]
    return {name: values[is_new] for name, values in edges.items()}
