"""A prepared folder of any size, written part by part without a table of interactions and without `prepare`.

Users and items have power-law degrees; the popular ones are spread over all parts. Memory is the sources of all
messages to items, 4 bytes an interaction, and a part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numba import njit

from benchmarks.graph import ITEM_EXPONENT, USER_EXPONENT
from dist_gat.base.random import Purpose, make_key, uniform
from dist_gat.base.storage import atomic_folder, save_array, write_manifest
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.sections import PartsConfig
from dist_gat.graph.made_from import made_from
from dist_gat.graph.part import FORMAT, MADE_FROM, POPULARITY_EXPONENT, SPLITS, VERSION, part_folder
from dist_gat.graph.ranges import NodeRanges
from dist_gat.graph.schema import INTERACTIONS

(INTERACTS,) = INTERACTIONS.relations
TABLE = "none.parquet"  # what a recipe names as its interactions
VALID_SHARE = 0.02
USERS_PER_CHUNK = 1 << 16


def write_large_graph(
    folder: Path, num_users: int, num_items: int, num_interactions: int, num_parts: int = 4, seed: int = 0
) -> None:
    """Write about so many distinct pairs, `VALID_SHARE` of them for validation: repeats are drawn and left out."""
    ranges = even_ranges(num_users, num_items, num_parts)
    rng = np.random.default_rng(seed)
    degree_U = power_law_degrees(num_users, num_interactions, rng)
    running_I = np.cumsum(np.arange(1, num_items + 1) ** -ITEM_EXPONENT)
    # the item node of each rank of popularity
    item_nodes = np.concatenate([np.arange(*bounds) for bounds in ranges.bounds_of(INTERACTS.target)])
    node_of_rank = rng.permutation(item_nodes)
    with atomic_folder(folder) as target:
        split_counts: dict[str, list[int]] = {split: [] for split in SPLITS}
        starts = np.concatenate([[0], np.cumsum(ranges.counts(INTERACTS.source))])
        for part in range(num_parts):
            users = ranges.nodes_of_type(part, INTERACTS.source)
            pairs = draw_pairs(users.start, degree_U[starts[part] : starts[part + 1]], running_I, node_of_rank, rng)
            is_valid = uniform(make_key(seed, Purpose.SPLIT, part), np.arange(len(pairs))) < VALID_SHARE
            for split, chosen in zip(SPLITS, (~is_valid, is_valid, np.zeros_like(is_valid)), strict=True):
                save_array(part_folder(target, part) / INTERACTS.name / f"{split}.npy", pairs[chosen])
                split_counts[split].append(int(chosen.sum()))
        mass = write_messages(target, ranges)
        (target / "ids").mkdir()
        for kind in INTERACTIONS.node_types:
            nodes = np.concatenate([np.arange(*bounds) for bounds in ranges.bounds_of(kind)])
            ids = pl.DataFrame({"external_id": np.arange(len(nodes)), "node_id": nodes})
            ids.write_parquet(target / "ids" / f"{kind}.parquet")
        content = {
            "name": "large",
            "schema": INTERACTIONS.to_plain(),
            "bounds": ranges.bounds.tolist(),
            "num_nodes": {kind: ranges.count(kind) for kind in INTERACTIONS.node_types},
            "split_counts": {INTERACTS.name: split_counts},
            "popularity_mass": {INTERACTS.name: mass},
            "target_messages": {INTERACTS.name: sum(split_counts["train"])},
            "columns": {},
            "labels": {INTERACTS.name: {}},
            MADE_FROM: made_from(DataConfig(interactions=TABLE), PartsConfig(num_parts=num_parts), seed),
        }
        write_manifest(target, FORMAT, VERSION, content)


def even_ranges(num_users: int, num_items: int, num_parts: int) -> NodeRanges:
    cuts = [np.arange(num_parts + 1) * count // num_parts for count in (num_users, num_items)]
    starts = np.sum(cuts, axis=0)
    bounds = np.stack([starts[:-1], starts[:-1] + np.diff(cuts[0]), starts[1:]], axis=1)
    return NodeRanges(bounds.astype(np.int64), INTERACTIONS.node_types)


def power_law_degrees(num_users: int, num_interactions: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [num_users]: at least 1 each, in random order."""
    share = np.arange(1, num_users + 1) ** -USER_EXPONENT
    return np.maximum(rng.permutation(share / share.sum() * num_interactions).astype(np.int64), 1)


def draw_pairs(
    first_user: int, degree_U: np.ndarray, running_I: np.ndarray, node_of_rank: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """int64 [m, 2]: distinct (user, item) nodes of consecutive users, sorted."""
    found = []
    for start in range(0, len(degree_U), USERS_PER_CHUNK):
        degree = degree_U[start : start + USERS_PER_CHUNK]
        users = np.repeat(np.arange(first_user + start, first_user + start + len(degree)), degree)
        ranks = np.searchsorted(running_I, rng.random(len(users)) * running_I[-1])
        key = (users << 32) | node_of_rank[ranks]
        key.sort()
        key = key[np.append(True, key[1:] != key[:-1])]
        found.append(np.stack([key >> 32, key & 0xFFFFFFFF], axis=1))
    return np.concatenate(found)


def write_messages(folder: Path, ranges: NodeRanges) -> list[float]:
    """The CSC of each part, both directions. Returns the sum of degree ** 0.75 over the items of each part."""

    def training_pairs(part: int) -> np.ndarray:
        return np.load(part_folder(folder, part) / INTERACTS.name / "train.npy", mmap_mode="r")

    degree_N = np.zeros(ranges.num_nodes, np.int64)
    for part in range(ranges.num_parts):
        count_ends(training_pairs(part), degree_N)
    is_item = ranges.is_of_type(np.arange(ranges.num_nodes), INTERACTS.target)
    # where the messages to each item begin, among those to all items
    place_N = np.cumsum(np.where(is_item, degree_N, 0))
    item_ends = place_N.copy()
    place_N -= np.where(is_item, degree_N, 0)
    sources = np.empty(int(item_ends[-1]), ranges.id_type)
    for part in range(ranges.num_parts):
        place_sources(training_pairs(part), place_N, sources)
    mass = []
    for part in range(ranges.num_parts):
        target, pairs = part_folder(folder, part), training_pairs(part)
        items = ranges.nodes_of_type(part, INTERACTS.target)
        begin = int(item_ends[items.start - 1]) if items.start else 0
        to_items = sources[begin : int(item_ends[items.stop - 1])]
        degree = degree_N[ranges.starts[part] : ranges.starts[part + 1]]
        save_array(target / "indptr.npy", np.concatenate([[0], np.cumsum(degree)]))
        save_array(target / "indices.npy", np.concatenate([pairs[:, 1].astype(ranges.id_type), to_items]))
        popularity = degree[-len(items) :].astype(np.float64) ** POPULARITY_EXPONENT
        save_array(target / INTERACTS.name / "popularity.npy", np.cumsum(popularity))
        mass.append(float(popularity.sum()))
    return mass


@njit(nogil=True, cache=True)
def count_ends(pairs, degree_N):  # type: ignore[no-untyped-def]
    for number in range(len(pairs)):
        degree_N[pairs[number, 0]] += 1
        degree_N[pairs[number, 1]] += 1


@njit(nogil=True, cache=True)
def place_sources(pairs, place_N, sources):  # type: ignore[no-untyped-def]
    """Put each pair's user where the next message to its item belongs; users ascend, and so do those of an item."""
    for number in range(len(pairs)):
        user, item = pairs[number]
        sources[place_N[item]] = user
        place_N[item] += 1
