"""Parts from a stream: where there are communities it finds them, and nothing but edges, parts and seed matters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from data_sets import interactions_graph
from helpers import random_pairs

from dist_gat.config.sections import PartsConfig
from dist_gat.graph.assign import assign_nodes
from dist_gat.graph.fennel import SLACK, fennel


class Edges(NamedTuple):
    user: np.ndarray
    item: np.ndarray


SIZE = NUM_USERS, NUM_ITEMS = 3000, 1000


def planted(num_communities: int, noise: float, in_order: bool, seed: int = 0) -> tuple[Edges, float]:
    """12 draws a user, and the share of edges between communities.

    in_order: users of a community lie beside each other, and its items; else they take turns.
    """
    rng = np.random.default_rng(seed)
    community = {n: np.arange(n) * num_communities // n if in_order else np.arange(n) % num_communities for n in SIZE}
    of_user, of_item = (community[n] for n in SIZE)
    user = np.repeat(np.arange(NUM_USERS), 12)
    own = np.argsort(of_item, kind="stable")
    size = NUM_ITEMS // num_communities
    item = own[of_user[user] * size + rng.integers(0, size, len(user))]
    item = np.where(rng.random(len(user)) < noise, rng.integers(0, NUM_ITEMS, len(user)), item)
    user, item = np.unique(np.stack([user, item]), axis=1)
    return Edges(user, item), float(np.mean(of_user[user] != of_item[item]))


def in_chunks(edges: Edges, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(edges.user), size):
        yield edges.user[start : start + size], edges.item[start : start + size]


def degrees(edges: Edges, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.bincount(edges.user, minlength=size[0]), np.bincount(edges.item, minlength=size[1])


def parts_of(
    edges: Edges, num_parts: int, size: tuple[int, int] = SIZE, chunk: int = 10_000, seed: int = 0
) -> np.ndarray:
    return fennel(in_chunks(edges, chunk), degrees(edges, size), num_parts, seed)


def cut_of(parts: np.ndarray, edges: Edges, num_users: int = NUM_USERS) -> float:
    return float(np.mean(parts[edges.user] != parts[edges.item + num_users]))


def balance_of(parts: np.ndarray, edges: Edges, num_parts: int, size: tuple[int, int] = SIZE) -> float:
    load = np.bincount(parts, weights=np.concatenate(degrees(edges, size)) + 1, minlength=num_parts)
    return float(load.max() / load.mean())


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize(
    ("num_communities", "num_parts", "noise"), [(4, 4, 0.1), (4, 4, 0.4), (20, 20, 0.2), (40, 4, 0.2)]
)
def test_finds_communities(num_communities: int, num_parts: int, noise: float, in_order: bool) -> None:
    edges, between = planted(num_communities, noise, in_order)
    parts = parts_of(edges, num_parts)
    assert cut_of(parts, edges) < 1.05 * between + 0.005
    assert balance_of(parts, edges, num_parts) <= SLACK + 0.005


@pytest.mark.parametrize("num_parts", [2, 4, 16])
def test_cuts_about_as_little_as_metis_and_less_than_hashing(num_parts: int) -> None:
    edges, _ = planted(10, 0.3, True)
    cut = {
        method: cut_of(
            assign_nodes(
                interactions_graph([edges], degrees(edges, SIZE)),
                PartsConfig.model_validate({"num_parts": num_parts, "method": method}),
                0,
            ),
            edges,
        )
        for method in ("metis", "fennel", "hash")
    }
    assert cut["fennel"] < 1.15 * cut["metis"]
    assert cut["fennel"] < 0.8 * cut["hash"]


@pytest.mark.parametrize("chunk", [1, 7, 500, 10**6])
def test_chunks_make_no_difference(chunk: int) -> None:
    edges = Edges(*np.array(random_pairs(60, 40, 0.1)).T)
    expected = parts_of(edges, 3, (60, 40))
    np.testing.assert_array_equal(parts_of(edges, 3, (60, 40), chunk), expected)
    assert set(expected) == {0, 1, 2}


def test_is_a_function_of_the_seed() -> None:
    edges, _ = planted(10, 0.3, False)
    np.testing.assert_array_equal(parts_of(edges, 4), parts_of(edges, 4))
    assert (parts_of(edges, 4) != parts_of(edges, 4, seed=1)).any()


def test_more_parts_than_communities_are_even() -> None:
    edges, _ = planted(3, 0.0, False)
    parts = parts_of(edges, 8)
    assert balance_of(parts, edges, 8) < 1.05
    assert cut_of(parts, edges) < 0.75 * (7 / 8)


def test_nodes_without_edges_go_where_there_is_room() -> None:
    edges = Edges(*np.array(random_pairs(60, 40, 0.1)).T)
    parts = parts_of(edges, 4, (100, 400))
    assert balance_of(parts, edges, 4, (100, 400)) < 1.01
    assert (np.bincount(parts[60:100], minlength=4) + np.bincount(parts[140:], minlength=4)).min() > 50


@pytest.mark.parametrize("size", [(0, 0), (5, 3), (0, 4)])
def test_a_graph_without_edges(size: tuple[int, int]) -> None:
    nothing = np.zeros(0, np.int64)
    parts = fennel(iter(()), (np.zeros(size[0], np.int64), np.zeros(size[1], np.int64)), 3, 0)
    np.testing.assert_array_equal(parts, fennel([(nothing, nothing)], degrees(Edges(nothing, nothing), size), 3, 0))
    assert len(parts) == sum(size)
    assert np.ptp(np.bincount(parts, minlength=3)) <= 1


def test_an_item_of_all_users_takes_no_other_node_along() -> None:
    """It is more than a part may hold, so everything else lies elsewhere."""
    edges = Edges(np.arange(1000), np.zeros(1000, np.int64))
    parts = parts_of(edges, 4, (1000, 1))
    load = np.bincount(parts, weights=np.append(np.full(1000, 2), 1001), minlength=4)
    assert load.max() < 1.4 * load.mean()


def test_leaves_no_file_behind(tmp_path: Path) -> None:
    edges = Edges(*np.array(random_pairs(60, 40, 0.1)).T)
    said: list[str] = []
    fennel(in_chunks(edges, 10), degrees(edges, (60, 40)), 2, 0, folder=tmp_path, progress=said.append)
    assert not list(tmp_path.iterdir())
    assert said[0] == "fennel: pass 1, 100.0% of users moved"
