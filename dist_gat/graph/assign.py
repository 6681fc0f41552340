"""Strategies that assign nodes to parts: `metis`, `fennel`, `range`, `hash`.

Raw node numbers here are users 0 to U-1, then items U to U+I-1. Each strategy returns int64 [U + I].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pymetis
from scipy.sparse import csr_array

from dist_gat.base.errors import ConfigError
from dist_gat.base.free_memory import free_memory
from dist_gat.base.quiet import silent
from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.config.sections import PartsConfig
from dist_gat.graph.fennel import Chunks, fennel, fennel_bytes


def assign_nodes(
    chunks: Chunks, degree: tuple[np.ndarray, np.ndarray], config: PartsConfig, seed: int, folder: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> np.ndarray:  # fmt: skip
    """The part of every raw node, by the configured strategy, from training interactions alone.

    chunks: users and items of these, by ascending user, read at most once. degree: int64 [U] and [I]. folder: for what
    `fennel` keeps on disk. Raises `ConfigError` where METIS would take more memory than is free.
    """
    num_users = len(degree[0])
    num_nodes = num_users + len(degree[1])
    if config.num_parts == 1:
        return np.zeros(num_nodes, dtype=np.int64)
    if config.method == "hash":
        key = make_key(seed, Purpose.ASSIGNMENT)
        return (hash_ids(key, np.arange(num_nodes)) % np.uint64(config.num_parts)).astype(np.int64)
    if config.method == "range":
        return np.concatenate([even_ranges(of_type, config.num_parts) for of_type in degree])
    if config.method == "fennel":
        return fennel(chunks, degree, config.num_parts, seed, folder=folder, progress=progress)
    advice = advice_on_memory(num_users, len(degree[1]), int(degree[0].sum()), config.num_parts, free_memory())
    if advice:
        raise ConfigError(advice)
    pairs = list(chunks)
    user, item = (np.concatenate([pair[end] for pair in pairs]) for end in (0, 1))
    return metis(user, item + num_users, num_nodes, config.num_parts, seed)


def metis(user: np.ndarray, item: np.ndarray, num_nodes: int, num_parts: int, seed: int) -> np.ndarray:
    """Few edges between parts, with even sums of (degree + 1), by METIS (Karypis, Kumar: SIAM J. Sci. Comput. 1998)."""
    ends = np.concatenate([user, item]), np.concatenate([item, user])
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


def advice_on_memory(num_users: int, num_items: int, num_edges: int, num_parts: int, free_bytes: int) -> str:
    """What to say before METIS runs: nothing where it fits `free_bytes`."""
    needed, instead = metis_bytes(num_users + num_items, num_edges), fennel_bytes(num_users, num_items, num_parts)
    if needed <= free_bytes:
        return ""
    return (
        f"parts.method=metis would take about {needed / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} GB are free; "
        f"parts.method=fennel takes about {instead / 1e9:.1f} GB, and {4 * num_edges / 1e9:.1f} GB of disk meanwhile"
    )


def even_ranges(degree: np.ndarray, num_parts: int) -> np.ndarray:
    """Cut nodes 0 to N-1 into contiguous runs of about equal (degree + 1) sums; int64 [N]."""
    weight = np.cumsum(degree + 1)
    return np.minimum((weight - 1) * num_parts // max(int(weight[-1]) if len(weight) else 1, 1), num_parts - 1)
