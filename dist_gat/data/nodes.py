"""`Nodes`: those of a vocabulary that are kept, by dense indices, and edges between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dist_gat.data.edge_file import Columns, EdgeFile, EdgeWriter, write_edges
from dist_gat.data.engine import Engine
from dist_gat.data.relations import Edges, Related
from dist_gat.data.split import SPLITS
from dist_gat.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Nodes:
    """The users, or the items, of a data set: those of a vocabulary that are kept."""

    vocabulary: Vocabulary
    index: np.ndarray  # int64 [of the vocabulary]: dense index, -1 where left out

    @property
    def count(self) -> int:
        return int(self.index.max(initial=-1)) + 1

    def ids(self, engine: Engine, column: str = "id") -> Iterator[Any]:
        """Series of the external IDs, or of another column of the vocabulary, by index."""
        start = 0
        for ids in self.vocabulary.ids(engine, column):
            yield ids.filter(self.index[start : start + len(ids)] >= 0)
            start += len(ids)


def separated(edges: EdgeFile, users: Nodes, items: Nodes, rows: int) -> tuple[EdgeFile, ...]:
    """The edges of train, valid and test, each in a file, with dense indices."""
    types = {name: kind for name, kind in edges.types.items() if name not in ("split", "key")}
    writers = [EdgeWriter(edges.folder.with_name(f"{edges.folder.name}-{split}"), types) for split in SPLITS]
    for chunk in edges.chunks(rows, [*types, "split"]):
        encoded = {**chunk, "source": users.index[chunk["source"]], "target": items.index[chunk["target"]]}
        for number, writer in enumerate(writers):
            own = chunk["split"] == number
            writer.append({name: encoded[name][own] for name in types})
    return tuple(writer.close() for writer in writers)


def further_nodes(context: Related, nodes: Mapping[str, Nodes], rows: int) -> dict[str, Nodes]:
    """Those of the types that users and items are none of: each has an edge whose other end is kept."""
    has_edge = {kind: np.zeros(own.count, bool) for kind, own in context.vocabularies.items()}
    for edges in context.edges.values():
        ends = {"source": edges.source, "target": edges.target}
        for chunk in edges.file.chunks(rows, list(ends)):
            kept = _ends_are_kept(chunk, ends, nodes)
            for end, kind in ends.items():
                if kind in has_edge:
                    has_edge[kind][chunk[end][kept]] = True
    return {kind: Nodes(own, dense(has_edge[kind])) for kind, own in context.vocabularies.items()}


def _ends_are_kept(chunk: Columns, ends: Mapping[str, str], nodes: Mapping[str, Nodes]) -> np.ndarray:
    kept = np.ones(len(chunk["source"]), bool)
    for end, kind in ends.items():
        if kind in nodes:
            kept &= nodes[kind].index[chunk[end]] >= 0
    return kept


def reindexed(edges: Edges, nodes: Mapping[str, Nodes], rows: int) -> Edges:
    """With dense indices, without edges of nodes that are left out."""
    file, ends = edges.file, {"source": edges.source, "target": edges.target}

    def chunks() -> Iterator[Columns]:
        for chunk in file.chunks(rows):
            kept = _ends_are_kept(chunk, ends, nodes)
            own = {name: values[kept] for name, values in chunk.items()}
            yield own | {end: nodes[kind].index[own[end]] for end, kind in ends.items()}

    return replace(edges, file=write_edges(file.folder.with_name(f"{file.folder.name}-dense"), file.types, chunks()))


def dense(known: np.ndarray) -> np.ndarray:
    """int64: consecutive numbers where `known`, -1 elsewhere."""
    return np.where(known, np.cumsum(known) - 1, -1)
