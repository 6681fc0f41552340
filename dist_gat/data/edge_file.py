"""`EdgeFile`: columns of edges on disk, read in chunks, so that memory does not grow with their number.

Shape legend: E edges, of which c are in a chunk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Columns = dict[str, np.ndarray]
# counts as an edge that was left out, beside train, valid and test, which are 0 to 2
GONE = 3
BESIDE_LABELS = ("source", "target", "category", "time", "split", "key")
COPY_BYTES = 8 << 20
# that are read at once; of larger arrays the system would map and clear the pages anew each time
MOST_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class EdgeFile:
    """`source` and `target`, uint32, sorted by both: users and items of interactions; `category`, uint16; `time`, int64
    microseconds; labels, float32, by their names; `split`, uint8; `key`, uint64, what random splits rank by: each where
    there is one."""

    folder: Path
    types: Mapping[str, str]  # of the columns
    count: int

    @property
    def labels(self) -> list[str]:
        return [name for name in self.types if name not in BESIDE_LABELS]

    @property
    def has_time(self) -> bool:
        return "time" in self.types

    def read(self, start: int, stop: int, names: Sequence[str] | None = None) -> Columns:
        """Arrays [c] of edges start to stop - 1."""
        found = {}
        for name in names or self.types:
            kind = np.dtype(self.types[name])
            found[name] = np.fromfile(self.folder / name, kind, stop - start, offset=start * kind.itemsize)
        return found

    def chunks(self, rows: int, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """All edges, `rows` or fewer at a time."""
        rows = min(rows, MOST_AT_ONCE)
        for start in range(0, self.count, rows):
            yield self.read(start, min(start + rows, self.count), names)

    def whole_users(self, degree: np.ndarray, rows: int) -> Iterator[Columns]:
        """Chunks of all edges of some users, about `rows` or fewer each. degree: of each user."""
        ends, rows = np.cumsum(degree), min(rows, MOST_AT_ONCE)
        start = 0
        while start < self.count:
            last = max(
                int(np.searchsorted(ends, start + rows, side="right")) - 1,
                int(np.searchsorted(ends, start, side="right")),
            )
            yield self.read(start, int(ends[last]))
            start = int(ends[last])


class EdgeWriter:
    """A new `EdgeFile`, to which edges are appended in their order."""

    def __init__(self, folder: Path, types: Mapping[str, str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
        folder.mkdir(parents=True)
        self.folder, self.types, self.count = folder, dict(types), 0
        self.files = {name: (folder / name).open("wb") for name in types}

    def append(self, chunk: Columns) -> None:
        self.count += len(chunk["source"])
        for name, file in self.files.items():
            chunk[name].astype(self.types[name], copy=False).tofile(file)

    def close(self) -> EdgeFile:
        for file in self.files.values():
            file.close()
        return EdgeFile(self.folder, self.types, self.count)


def write_edges(folder: Path, types: Mapping[str, str], chunks: Iterable[Columns]) -> EdgeFile:
    """A new file of chunks of edges, in their order."""
    writer = EdgeWriter(folder, types)
    try:
        for chunk in chunks:
            writer.append(chunk)
    finally:
        edges = writer.close()
    return edges


def joined(folder: Path, pieces: Sequence[EdgeFile]) -> EdgeFile:
    """One file of several, which vanish."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in pieces[0].types:
        with (folder / name).open("wb") as whole:
            for piece in pieces:
                with (piece.folder / name).open("rb") as part:
                    shutil.copyfileobj(part, whole, COPY_BYTES)
    for piece in pieces:
        shutil.rmtree(piece.folder)
    return EdgeFile(folder, pieces[0].types, sum(piece.count for piece in pieces))


def with_column(edges: EdgeFile, name: str, kind: str, chunks: Iterable[np.ndarray]) -> EdgeFile:
    """The edges with a new column, or another one in its place, given in chunks of any size."""
    fresh = edges.folder / f"{name}.part"
    with fresh.open("wb") as file:
        for chunk in chunks:
            chunk.astype(kind, copy=False).tofile(file)
    fresh.replace(edges.folder / name)
    return EdgeFile(edges.folder, {**edges.types, name: kind}, edges.count)


def with_split(edges: EdgeFile, splits: Iterable[np.ndarray]) -> EdgeFile:
    return with_column(edges, "split", "uint8", splits)


def degrees(edges: EdgeFile, name: str, size: int, rows: int, split: int | None = None) -> np.ndarray:
    """int64 [size]: how many edges each user, or item, has; of one split alone, if it is given."""
    found = np.zeros(size, np.int64)
    for chunk in edges.chunks(rows, [name] if split is None else [name, "split"]):
        ids = chunk[name] if split is None else chunk[name][chunk["split"] == split]
        found += np.bincount(ids, minlength=size)
    return found
