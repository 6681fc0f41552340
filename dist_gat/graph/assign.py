"""Strategies that assign nodes to parts: `metis`, `fennel`, `range`, `hash`.

Raw node numbers here go through the types one after another, users and items first. Each strategy returns int64
[nodes].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pymetis
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.base.free_memory import free_memory
from dist_gat.base.quiet import silent
from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.config.sections import PartsConfig
from dist_gat.graph.fennel import Chunks, fennel, fennel_bytes, settle


@dataclass(frozen=True)
class Graph:
    """What parts are made for. sizes: nodes of each type; users and items come first.

    edges: by the numbers of two types, chunks of sources and targets, int64, by ascending source; the first are the
    interactions. degree: int64 [nodes of a type], of all these edges, by type. of_interactions: of those alone, of
    users and of items.
    """

    sizes: Sequence[int]
    edges: Sequence[tuple[int, int, Callable[[], Chunks]]]
    degree: Sequence[np.ndarray]
    of_interactions: tuple[np.ndarray, np.ndarray]

    @property
    def starts(self) -> np.ndarray:
        """int64 [types + 1]: the first raw number of each type."""
        return np.append(0, np.cumsum(self.sizes))

    @property
    def num_edges(self) -> int:
        return sum(int(degree.sum()) for degree in self.degree) // 2


def assign_nodes(
    graph: Graph, config: PartsConfig, seed: int, folder: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> np.ndarray:  # fmt: skip
    """The part of every raw node, by the configured strategy, from training edges alone.

    folder: for what `fennel` keeps on disk. Raises `ConfigError` where METIS or `fennel` would take more memory than is
    free.
    """
    num_nodes = sum(graph.sizes)
    if config.num_parts == 1:
        return np.zeros(num_nodes, dtype=np.int64)
    if config.method == "hash":
        # by type, so that the parts of items don't tell how many users there are
        hashes = [
            hash_ids(make_key(seed, Purpose.ASSIGNMENT, kind), np.arange(size)) for kind, size in enumerate(graph.sizes)
        ]
        return (np.concatenate(hashes) % np.uint64(config.num_parts)).astype(np.int64)
    if config.method == "range":
        return np.concatenate([even_ranges(of_type, config.num_parts) for of_type in graph.degree])
    advice = advice_on_memory(config.method, graph.sizes, graph.num_edges, config.num_parts, free_memory())
    if advice:
        raise ConfigError(advice)
    if config.method == "fennel":
        (_, _, interactions), *others = graph.edges
        parts = fennel(interactions(), graph.of_interactions, config.num_parts, seed, folder=folder, progress=progress)
        return settle(parts, graph.starts, others, graph.degree, config.num_parts)
    pairs = [
        (source + graph.starts[one], target + graph.starts[other])
        for one, other, chunks in graph.edges
        for source, target in chunks()
    ]
    source, target = (np.concatenate([pair[end] for pair in pairs]) for end in (0, 1))
    return metis(source, target, num_nodes, config.num_parts, seed)


def metis(source: np.ndarray, target: np.ndarray, num_nodes: int, num_parts: int, seed: int) -> np.ndarray:
    """Few edges between parts, with even sums of (degree + 1), by METIS (Karypis, Kumar: SIAM J. Sci. Comput. 1998)."""
    ends = np.concatenate([source, target]), np.concatenate([target, source])
    graph = csr_array((np.ones(len(ends[0]), dtype=np.bool_), ends), shape=(num_nodes, num_nodes))
    # METIS takes seeds of 31 bits
    options = pymetis.Options(seed=int(make_key(seed, Purpose.ASSIGNMENT)) >> 33)
    # METIS prints from C where a region of the graph has fewer nodes than parts
    with silent():
        parts = pymetis.part_graph(
            num_parts,
            pymetis.CSRAdjacency(graph.indptr, graph.indices),
            vweights=np.diff(graph.indptr) + 1,
            options=options,
        )
    return np.array(parts.vertex_part, dtype=np.int64)


def metis_bytes(num_nodes: int, num_edges: int) -> int:
    """About what METIS takes at its peak, beside the edges: measured on graphs of 0.1 to 10 M edges.

    With 10 edges a node it is true to a few percent; of graphs with one edge a node METIS takes half as much.
    """
    return 420 * num_nodes + 240 * num_edges


def advice_on_memory(method: str, sizes: Sequence[int], num_edges: int, num_parts: int, free_bytes: int) -> str:
    """What to say before METIS or `fennel` runs: nothing where it fits `free_bytes`. sizes: nodes of each type."""
    of_fennel = fennel_bytes(sizes, num_parts)
    needed = metis_bytes(sum(sizes), num_edges) if method == "metis" else of_fennel
    if needed <= free_bytes:
        return ""
    told = f"parts.method={method} would take about {needed / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} GB are free; "
    if method == "metis" and of_fennel <= free_bytes:
        return (
            f"{told}parts.method=fennel takes about {of_fennel / 1e9:.1f} GB, and {4 * num_edges / 1e9:.1f} GB of disk "
            "meanwhile"
        )
    return f"{told}parts.method=range takes some 40 bytes a node; it cuts more edges"


def even_ranges(degree: np.ndarray, num_parts: int) -> np.ndarray:
    """Cut nodes 0 to N-1 into contiguous runs of about equal (degree + 1) sums; int64 [N]."""
    weight = np.cumsum(degree + 1)
    return np.minimum((weight - 1) * num_parts // max(int(weight[-1]) if len(weight) else 1, 1), num_parts - 1)
