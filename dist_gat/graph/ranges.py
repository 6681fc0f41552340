"""`NodeRanges`: who owns which node IDs. The only sharding there is.

Part p owns the contiguous node IDs bounds[p, 0] to bounds[p, T] - 1; inside a part, nodes of type t are
bounds[p, t] to bounds[p, t+1] - 1. A rank owns a contiguous run of parts, so ownership by rank is a
coarser set of ranges, and any world size up to the number of parts fits the same files.

Shape legend: P parts, T node types, W ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from dist_gat.base.errors import StorageError

# buckets of `_intervals`; so many that most of them contain no start
BUCKETS_PER_START = 16


@dataclass(frozen=True)
class NodeRanges:
    """bounds: int64 [P, T + 1], first node ID of each type in each part, and the part's end."""

    bounds: np.ndarray
    node_types: tuple[str, ...]

    @property
    def num_parts(self) -> int:
        return self.bounds.shape[0]

    @property
    def num_nodes(self) -> int:
        return int(self.bounds[-1, -1])

    @property
    def id_type(self) -> type[np.signedinteger]:
        """The type of node IDs on disk and in messages between ranks."""
        return np.int32 if self.num_nodes <= np.iinfo(np.int32).max else np.int64

    @property
    def starts(self) -> np.ndarray:
        """int64 [P + 1]: part p owns node IDs starts[p] to starts[p + 1] - 1."""
        return np.append(self.bounds[:, 0], self.bounds[-1, -1])

    def part_of(self, nodes: np.ndarray) -> np.ndarray:
        """The part that owns each node, int64 of the shape of `nodes`."""
        return intervals_of(self.starts, nodes)

    def type_of(self, nodes: np.ndarray) -> np.ndarray:
        """The type index of each node."""
        return np.tile(np.arange(len(self.node_types)), self.num_parts)[self.cell_of(nodes)]

    def cell_of(self, nodes: np.ndarray) -> np.ndarray:
        """part * T + type of each node. Empty type ranges are passed over, as the last equal bound wins."""
        return intervals_of(self.bounds[:, :-1].ravel(), nodes)

    def index_of(self, node_type: str) -> int:
        return self.node_types.index(node_type)

    def is_of_type(self, nodes: np.ndarray, node_type: str) -> np.ndarray:
        """bool of the shape of `nodes`"""
        return self.type_of(nodes) == self.index_of(node_type)

    def nodes_of_type(self, part: int, node_type: str) -> range:
        first, last = self.bounds_of(node_type)[part]
        return range(int(first), int(last))

    def bounds_of(self, node_type: str) -> np.ndarray:
        """int64 [P, 2]: the first node ID of a type in each part, and one past its last."""
        index = self.index_of(node_type)
        return self.bounds[:, index : index + 2]

    def counts(self, node_type: str) -> np.ndarray:
        """int64 [P]: how many nodes of a type each part has."""
        return np.diff(self.bounds_of(node_type))[:, 0]

    def count(self, node_type: str) -> int:
        return int(self.counts(node_type).sum())


def intervals_of(starts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The last j with starts[j] <= value, int64 shaped like `values`; -1 below the first. `starts`: int64, sorted."""
    if values.size < BUCKETS_PER_START * len(starts) or not len(starts):
        # for so few values, making the buckets takes longer
        return np.searchsorted(starts, values, side="right") - 1
    return _intervals(starts, values.ravel()).reshape(values.shape)


@njit(nogil=True, cache=True)
def _intervals(starts, values):  # type: ignore[no-untyped-def]
    """A binary search among the intervals that a value's bucket overlaps, which is mostly one.

    Buckets have equal width, from the first start to the last. Without them, the processor can't predict the branches
    of the search.
    """
    out = np.full(values.shape[0], -1, np.int64)
    last, num_buckets, shift = starts.shape[0] - 1, 1, np.uint64(0)
    while num_buckets < BUCKETS_PER_START * starts.shape[0]:
        num_buckets *= 2
    while np.uint64(starts[last] - starts[0]) >> shift >= np.uint64(num_buckets):
        shift += np.uint64(1)
    # values beyond the last bucket share one more
    interval_B, j = np.full(num_buckets + 2, last, np.int64), 0
    for b in range(num_buckets):
        while j < last and np.uint64(starts[j + 1] - starts[0]) <= np.uint64(b) << shift:
            j += 1
        interval_B[b] = j
    for i in range(values.shape[0]):
        value = values[i]
        if value < starts[0]:
            continue
        bucket = min(np.uint64(value - starts[0]) >> shift, np.uint64(num_buckets))
        low, high = np.uint64(interval_B[bucket]), np.uint64(interval_B[bucket + np.uint64(1)])
        while low < high:
            middle = (low + high + np.uint64(1)) >> np.uint64(1)
            if starts[middle] <= value:
                low = middle
            else:
                high = middle - np.uint64(1)
        out[i] = np.int64(low)
    return out


def read_ranges(manifest: dict[str, Any], node_types: tuple[str, ...], file: Path, remedy: str) -> NodeRanges:
    """The ranges of these types that a manifest records as `bounds`. Raises `StorageError` where they are invalid."""
    bounds = manifest.get("bounds")
    try:
        array = np.array(bounds, dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0, np.int64)
    fits = array.shape == (len(array), len(node_types) + 1) and len(array) > 0
    if not fits or array[0, 0] != 0 or (np.diff(array) < 0).any() or (array[1:, 0] != array[:-1, -1]).any():
        raise StorageError(
            f"{file}: expected bounds of ascending node IDs of the types {', '.join(node_types)}, each part beginning "
            f"where the one before ends; found {str(bounds)[:80]}; {remedy}"
        )
    return NodeRanges(array, node_types)


def parts_of_ranks(num_parts: int, world_size: int) -> np.ndarray:
    """int64 [W + 1]: rank r owns parts out[r] to out[r + 1] - 1, as even as whole parts allow."""
    assert 0 < world_size <= num_parts, (world_size, num_parts)
    return np.arange(world_size + 1, dtype=np.int64) * num_parts // world_size
