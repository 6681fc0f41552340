"""The files of the parts: pairs of each split and relation, messages as CSC, features, IDs.

EdgeFile come and go in chunks; what stays in memory grows with the nodes alone. Shape legend: N nodes, P parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from dist_gat.base.storage import save_array
from dist_gat.data.dataset import WEIGHT, Dataset, Nodes
from dist_gat.data.edge_file import Columns, EdgeFile, degrees
from dist_gat.data.engine import Engine
from dist_gat.graph.array_file import ArrayFile
from dist_gat.graph.part import POPULARITY_EXPONENT, part_folder
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import INTERACTIONS, Relation
from dist_gat.graph.sorted_runs import run_starts, sorted_edges

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

    def splits(self, relation: str, split: str, edges: EdgeFile | None, labels: list[str]) -> list[int]:
        """The pairs of a split by part, sorted by user and item, and their labels. Returns their number by part."""
        names = {"pairs": f"{relation}/{split}", **{label: f"{relation}/{split}_{label}" for label in labels}}
        counts = np.zeros(self.labels.ranges.num_parts, np.int64)
        chunks = iter(()) if edges is None else self._sorted(edges, self._renamed(edges, "user", labels), "user")
        with _PartFiles(self.folder, self.labels.ranges, names, {"pairs": (np.dtype(np.int64), (2,))}) as files:
            for part, own in files.by_part(chunks):
                pairs = np.stack([own["dst"], own["src"]], axis=1)
                files.append(part, {"pairs": pairs, **{label: own[label] for label in labels}})
                counts[part] += len(pairs)
        return [int(count) for count in counts]

    def messages(
        self, carrying: list[EdgeFile], min_weight: float | None, relations: tuple[Relation, ...]
    ) -> tuple[list[float], int]:
        """CSC of in-edges, both directions, each pair once, with weight and time where only interactions carry any.

        Returns the sum of degree ** 0.75 over the items of each part, and the number of messages to items.
        """
        ranges, (first, *more) = self.labels.ranges, carrying
        attributes = (
            {}
            if more
            else ({"edge_weight": WEIGHT} if WEIGHT in first.labels else {})
            | ({"edge_time": "time"} if first.has_time else {})
        )
        streams = [self._messages_to(end, carrying, min_weight, attributes) for end in ("user", "item")]
        heads = [_Cut(stream) for stream in streams]
        masses, num_to_items = [], 0
        for part in range(ranges.num_parts):
            target, first_node = part_folder(self.folder, part), int(ranges.starts[part])
            degree = np.zeros(int(ranges.starts[part + 1]) - first_node, np.int64)
            with ExitStack() as stack:
                types = {
                    "indices": np.dtype(ranges.id_type),
                    "edge_weight": np.dtype("float32"),
                    "edge_time": np.dtype("int64"),
                }
                files = {
                    name: stack.enter_context(ArrayFile(target / f"{name}.npy", types[name]))
                    for name in ("indices", *attributes)
                }
                for kind, head in enumerate(heads):
                    for own in head.until(int(ranges.bounds[part, kind + 1])):
                        degree += np.bincount(own["dst"] - first_node, minlength=len(degree))
                        files["indices"].append(own["src"])
                        for name in attributes:
                            files[name].append(own[name])
                        num_to_items += len(own["dst"]) if kind == ranges.index_of(INTERACTS.target) else 0
            save_array(target / "indptr.npy", np.concatenate([[0], np.cumsum(degree)]))
            items = ranges.nodes_of_type(part, INTERACTS.target)
            mass = degree[items.start - first_node : items.stop - first_node].astype(np.float64) ** POPULARITY_EXPONENT
            for relation in relations:
                save_array(target / relation.name / "popularity.npy", np.cumsum(mass))
            masses.append(float(mass.sum()))
        return masses, num_to_items

    def _messages_to(
        self, end: str, carrying: list[EdgeFile], min_weight: float | None, attributes: dict[str, str]
    ) -> Iterator[Columns]:
        def chunks() -> Iterator[Columns]:
            for number, edges in enumerate(carrying):
                for chunk in edges.chunks(self.rows):
                    if min_weight is not None and number == 0 and WEIGHT in chunk:
                        some = chunk[WEIGHT] >= min_weight
                        chunk = {name: values[some] for name, values in chunk.items()}
                    yield self._ends(chunk, end) | {new: chunk[name] for new, name in attributes.items()}

        in_order = end == "user" and len(carrying) == 1 and self.labels.keeps_order
        self.progress(f"sorting messages to {end}s")
        found = chunks() if in_order else sorted_edges(chunks(), self._starts(carrying, end), self.work / f"to-{end}")
        return found if len(carrying) == 1 else map(without_repeats, found)

    def _renamed(self, edges: EdgeFile, end: str, labels: list[str]) -> Iterator[Columns]:
        for chunk in edges.chunks(self.rows):
            yield self._ends(chunk, end) | {label: chunk[label] for label in labels}

    def _ends(self, chunk: Columns, end: str) -> Columns:
        user, item = self.labels.user[chunk["user"]], self.labels.item[chunk["item"]]
        return {"dst": user, "src": item} if end == "user" else {"dst": item, "src": user}

    def _sorted(self, edges: EdgeFile, chunks: Iterator[Columns], end: str) -> Iterator[Columns]:
        if self.labels.keeps_order:
            return chunks
        return sorted_edges(chunks, self._starts([edges], end), self.work / "pairs")

    def _starts(self, several: list[EdgeFile], end: str) -> np.ndarray:
        """Runs of the nodes of one type that edges lead to."""
        of_node = np.zeros(self.labels.ranges.num_nodes, np.int64)
        nodes = self.labels.nodes[end]
        of_node[nodes] = np.sum([degrees(edges, end, len(nodes), self.rows) for edges in several], axis=0)
        return run_starts(of_node, self.rows)

    def features(self, dataset: Dataset) -> None:
        for kind, table in dataset.features.items():
            nodes = self.labels.nodes[kind]
            row_of_node = np.full(self.labels.ranges.num_nodes, -1, dtype=np.int64)
            row_of_node[nodes] = np.arange(len(nodes))
            for part in range(self.labels.ranges.num_parts):
                owned = self.labels.ranges.nodes_of_type(part, kind)
                rows = row_of_node[owned.start : owned.stop]
                save_array(part_folder(self.folder, part) / "features" / f"{kind}.npy", table.values[rows])

    def ids(self, engine: Engine, kind: str, nodes: Nodes, titles: np.ndarray | None) -> None:
        """external_id, node_id[, title], sorted by external ID."""
        path = self.folder / "ids" / f"{kind}.parquet"
        path.parent.mkdir(exist_ok=True)
        numbers, start, writer = self.labels.nodes[kind], 0, None
        for ids in nodes.ids(engine):
            own = slice(start, start + len(ids))
            table = pl.DataFrame({"external_id": ids, "node_id": numbers[own]})
            if titles is not None:
                table = table.with_columns(pl.Series("title", titles[own].tolist(), dtype=pl.String))
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


def without_repeats(edges: Columns) -> Columns:
    """Of sorted edges without attributes, each once."""
    dst, src = edges["dst"], edges["src"]
    is_new = np.append(True, (dst[1:] != dst[:-1]) | (src[1:] != src[:-1]))[: len(dst)]
    return {"dst": dst[is_new], "src": src[is_new]}


def plain_text(table: pa.Table) -> pa.Table:
    """With text as all readers know it, and not as polars' views."""
    fields = [pa.field(f.name, pa.large_string() if pa.types.is_string_view(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))
