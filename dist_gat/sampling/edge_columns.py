"""What all edges to some nodes carry, as the layers read it: `EDGE_COLUMNS` without sampling.

Shape legend: n nodes, e edges to them, F the most of one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dist_gat.graph.part import Part
from dist_gat.graph.schema import Schema
from dist_gat.sampling.hop_plan import EDGE_COLUMNS, FLOATS

MICROSECONDS = 1e-6
# what the parts have of what the layers read
STORED = {"rank": ("kind",), "age": ("kind", "time")}


def stored_columns(part: Part, schema: Schema, rows: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """[e]: what the parts store of all edges to some nodes of one, node after node, as far as `names` need it.

    rows: int64 [n], the nodes' numbers in the part. `kind` is the number of the edge type.
    """
    wanted = {stored for name in names for stored in STORED.get(name, (name,))}
    if not wanted:
        return {}
    start, stop = part.node_starts[rows], part.node_starts[rows + 1]
    at = positions(start, stop - start)
    found = {name: np.asarray(part.edge_column(name))[at] for name in wanted if name in part.edge_columns}
    if "kind" in wanted:
        nodes = rows + part.first_node
        kind_of_node = part.rows.type_of(nodes)
        # the rows of a node, one an edge type, stand together
        every = positions(part.rows.of(nodes), np.array(part.rows.slots)[kind_of_node])
        into = [np.array(schema.into(kind), dtype=np.int64) for kind in schema.node_types]
        kinds = np.concatenate([np.zeros(0, np.int64), *(into[kind] for kind in kind_of_node)])
        found["kind"] = np.repeat(kinds, part.indptr[every + 1] - part.indptr[every])
    return found


def read_columns(
    stored: Mapping[str, np.ndarray], count: np.ndarray, schema: Schema, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """By name, [e]: what the layers read. count: int64 [n], the edges of each node."""
    num_edges = int(count.sum())
    found: dict[str, np.ndarray] = {}
    for name in (name for name in EDGE_COLUMNS if name in names):
        if name in ("rank", "age"):
            first = first_alike(stored["kind"], count)
            has_time = np.array(schema.has_time)[stored["kind"]]
        if name == "rank":
            found[name] = np.arange(num_edges) - first
        elif name == "age":
            times = stored.get("time", np.zeros(num_edges, np.int64))
            seconds = (times[first] - times) * MICROSECONDS
            found[name] = np.where(has_time, np.log2(1.0 + np.maximum(seconds, 0)), 0)
        else:
            found[name] = stored.get(name, np.zeros(num_edges))
        found[name] = found[name].astype(np.float32 if name in FLOATS else np.int64)
    return found


def first_alike(kinds: np.ndarray, count: np.ndarray) -> np.ndarray:
    """int64 [e]: where the first edge of the same node and type is; it is the newest where there are times."""
    is_first = np.ones(len(kinds), bool)
    is_first[1:] = kinds[1:] != kinds[:-1]
    starts = np.cumsum(count) - count
    is_first[starts[count > 0]] = True
    return np.maximum.accumulate(np.where(is_first, np.arange(len(kinds)), 0))


def edges_in_full(part: Part, schema: Schema, rows: np.ndarray, names: Sequence[str]) -> dict[str, Tensor]:
    """By name, [n, F]: what the layers read of all edges to some nodes of a part, with 0 as padding."""
    count = part.node_starts[rows + 1] - part.node_starts[rows]
    return padded_columns(read_columns(stored_columns(part, schema, rows, names), count, schema, names), count)


def padded_columns(columns: Mapping[str, np.ndarray], count: np.ndarray) -> dict[str, Tensor]:
    """By name, [n, F], from [e]. count: int64 [n]."""
    found = {}
    for name, values in columns.items():
        out = np.zeros((len(count), int(count.max(initial=0))), values.dtype)
        _pad(values, count, out)
        found[name] = torch.from_numpy(out)
    return found


@njit(nogil=True, cache=True)
def _pad(values, count, out):  # type: ignore[no-untyped-def]
    start = 0
    for i in range(len(count)):
        for j in range(count[i]):
            out[i, j] = values[start + j]
        start += count[i]


def positions(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0] … start[0] + count[0] - 1, then those of the next: int64 [sum of counts]."""
    return np.repeat(start - (np.cumsum(count) - count), count) + np.arange(count.sum())
