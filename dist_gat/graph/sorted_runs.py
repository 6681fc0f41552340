"""Edges sorted by (destination, source) in bounded memory: cut into runs of destinations, each sorted by itself.

Shape legend: c edges of a chunk; R runs; N nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numba import njit

from dist_gat.base.pairs import order_of_pairs, sort_pairs
from dist_gat.data.edge_file import Columns
from dist_gat.kernels.grouping import order_by_group, split

# a node has at least so many edges, where they are sorted by counting; of fewer, the counts would take more memory
COUNTED_EDGES = 4


def run_starts(degree: np.ndarray, rows: int) -> np.ndarray:
    """int64 [R + 1]: run r has the edges to nodes out[r] to out[r + 1] - 1, about `rows` of them. degree: [N]."""
    ends = np.cumsum(degree)
    cuts = [0]
    while cuts[-1] < len(degree):
        done = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(int(np.searchsorted(ends, done + rows, side="right")), cuts[-1] + 1))
    return np.array(cuts, np.int64)


def sorted_edges(chunks: Iterator[Columns], starts: np.ndarray, folder: Path) -> Iterator[Columns]:
    """The edges of chunks, each with `dst`, `src` and attributes, sorted by destination and then source.

    starts: int64 [R + 1], as `run_starts` gives. folder: for runs on disk, where there are several.
    """
    if len(starts) <= 2:
        held = list(chunks)
        if held:
            yield _sorted({name: np.concatenate([chunk[name] for chunk in held]) for name in held[0]})
        return
    types = _scatter(chunks, starts, folder)
    for run in range(len(starts) - 1):
        if (folder / f"{run}-dst").exists():
            yield _sorted({name: np.fromfile(folder / f"{run}-{name}", kind) for name, kind in types.items()})
            for name in types:
                (folder / f"{run}-{name}").unlink()


def _scatter(chunks: Iterator[Columns], starts: np.ndarray, folder: Path) -> dict[str, np.dtype]:
    """Append every edge to the files of its run; the columns' types."""
    folder.mkdir(exist_ok=True)
    types: dict[str, np.dtype] = {}
    with ExitStack() as stack:
        files: dict[tuple[int, str], BinaryIO] = {}
        for chunk in chunks:
            types = {name: values.dtype for name, values in chunk.items()}
            run = np.searchsorted(starts, chunk["dst"], side="right") - 1
            order, counts = order_by_group(run, len(starts) - 1)
            for name, values in chunk.items():
                for number, own in enumerate(split(values[order], counts)):
                    if len(own):
                        if (number, name) not in files:
                            files[number, name] = stack.enter_context((folder / f"{number}-{name}").open("wb"))
                        own.tofile(files[number, name])
    return types


def _sorted(edges: Columns) -> Columns:
    if "category" in edges:  # which tells edges between the same nodes apart
        order = np.lexsort([edges["category"], edges["src"], edges["dst"]])
        return {name: values[order] for name, values in edges.items()}
    if not len(edges["dst"]):
        return edges
    first = edges["dst"].min()
    num_nodes = int(edges["dst"].max() - first) + 1
    # sorted by source already, as edges of users are whose node IDs keep their order: counting is three times as fast
    if num_nodes <= len(edges["dst"]) // COUNTED_EDGES and (edges["src"][1:] >= edges["src"][:-1]).all():
        order, _ = order_by_group(edges["dst"] - first, num_nodes)
    elif len(edges) == 2:
        dst, src = sort_pairs(edges["dst"], edges["src"])
        return {"dst": dst, "src": src}
    else:
        order = order_of_pairs(edges["dst"], edges["src"])
    return {name: values[order] for name, values in edges.items()}


def newest_first(edges: Columns) -> Columns:
    """Sorted edges of whole destinations with `time`: each destination's by time, the newest first; those of the same
    time stay in order."""
    order = np.empty(len(edges["dst"]), np.int64)
    _order_by_time(edges["dst"], edges["time"], order)
    return {name: values if name == "dst" else values[order] for name, values in edges.items()}


@njit(nogil=True, cache=True)
def _order_by_time(dst, time, order):  # type: ignore[no-untyped-def]
    start = 0
    while start < len(dst):
        stop = start + 1
        is_sorted = True
        while stop < len(dst) and dst[stop] == dst[start]:
            is_sorted &= time[stop] <= time[stop - 1]
            stop += 1
        if is_sorted:
            for i in range(start, stop):
                order[i] = i
        else:
            # of the same time in order: merge sort is stable
            within = np.argsort(-time[start:stop], kind="mergesort")
            for i in range(stop - start):
                order[start + i] = start + within[i]
        start = stop
