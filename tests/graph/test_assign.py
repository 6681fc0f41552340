"""Where each strategy puts nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pymetis
import pytest
from data_sets import edges_of, interactions_graph
from helpers import INTERACTS, random_pairs
from hypothesis import given
from hypothesis import strategies as st

from dist_gat.base.errors import ConfigError
from dist_gat.config.sections import PartsConfig
from dist_gat.data.edge_file import EdgeFile
from dist_gat.graph import assign as graph_assign
from dist_gat.graph.assign import advice_on_memory, assign_nodes, even_ranges, metis_bytes
from dist_gat.graph.fennel import fennel_bytes
from dist_gat.graph.prepare import partition_quality, relabel

METHODS = ("metis", "fennel", "range", "hash")


def communities(num_communities: int, size: int) -> EdgeFile:
    """Users and items of a community are all joined, and no others."""
    pairs = [
        (c + num_communities * u, c + num_communities * i)
        for c in range(num_communities)
        for u in range(size)
        for i in range(size)
    ]
    return edges_of(sorted(pairs))


def assign(train: EdgeFile, size: tuple[int, int], method: str, num_parts: int, seed: int = 0) -> np.ndarray:
    pairs = train.read(0, train.count)
    degree = tuple(np.bincount(pairs[end], minlength=n) for end, n in zip(("source", "target"), size, strict=True))
    graph = interactions_graph([(pairs["source"].astype(np.int64), pairs["target"].astype(np.int64))], degree)
    return assign_nodes(graph, PartsConfig.model_validate({"num_parts": num_parts, "method": method}), seed)


@pytest.mark.parametrize("method", METHODS)
def test_every_node_has_a_part_and_it_is_always_the_same(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    train = edges_of(random_pairs(60, 40, 0.1))
    parts = assign(train, (60, 40), method, 5)
    assert parts.dtype == np.int64
    assert len(parts) == 100
    assert set(parts) == set(range(5))
    np.testing.assert_array_equal(parts, assign(train, (60, 40), method, 5))
    assert assign(train, (60, 40), method, 1).tolist() == [0] * 100
    assert capfd.readouterr() == ("", ""), "METIS must not print"


def test_metis_finds_communities_that_others_cut() -> None:
    train = communities(4, 6)
    cut = {}
    for method in METHODS:
        labels = relabel(assign(train, (24, 24), method, 4), {"user": 24, "item": 24}, 4)
        cut[method] = partition_quality(train, INTERACTS, labels)["edge_cut"]
    assert cut["metis"] == 0
    assert min(cut["range"], cut["hash"]) > 0.4


ASSIGN = """
import sys
sys.path.append({tests!r})
from data_sets import edges_of
from graph.test_assign import assign
from helpers import random_pairs
print(assign(edges_of(random_pairs(240, 120, 0.1)), (240, 120), "metis", 2).tolist())
"""


def test_metis_does_not_depend_on_what_memory_held() -> None:
    """DGL's METIS does: it gives this graph one of two assignments."""
    command = [sys.executable, "-c", ASSIGN.format(tests=str(Path(__file__).parents[1]))]
    runs = [
        subprocess.Popen(command, env=os.environ | {"MALLOC_PERTURB_": fill}, stdout=subprocess.PIPE, text=True)
        for fill in ("1", "255")
    ]
    one, other = (run.communicate(timeout=60)[0] for run in runs)
    assert one.count(",") == 359
    assert one == other


def test_metis_depends_on_the_seed() -> None:
    train = edges_of(random_pairs(60, 40, 0.1))
    assert (assign(train, (60, 40), "metis", 4) != assign(train, (60, 40), "metis", 4, seed=1)).any()


def test_metis_evens_edges_and_nodes() -> None:
    train = edges_of(random_pairs(400, 200, 0.05))
    parts, degree = (
        assign(train, (400, 200), "metis", 4),
        np.bincount(np.r_[train.read(0, train.count)["source"], train.read(0, train.count)["target"] + 400]),
    )
    assert np.bincount(parts, weights=degree + 1).max() < 1.04 * (degree + 1).sum() / 4


def test_metis_says_nothing_where_there_is_nothing_to_cut(capfd: pytest.CaptureFixture[str]) -> None:
    assign(edges_of([(0, 0)]), (1, 1), "metis", 7)
    assert capfd.readouterr() == ("", "")


def test_metis_numbers_in_64_bits() -> None:
    """As its wheels are built; with 32 it could not take graphs of a billion interactions."""
    graph = pymetis.CSRAdjacency(np.array([0, 1, 2]), np.array([1, 0]))
    assert pymetis.part_graph(2, graph).vertex_part.itemsize == 8


def test_advice_where_metis_does_not_fit() -> None:
    needed = metis_bytes(2 * 10**6, 10**8)
    assert advice_on_memory("metis", (10**6, 10**6), 10**8, 16, needed) == ""
    assert advice_on_memory("metis", (10**6, 10**6), 10**8, 16, needed - 10**9) == (
        "parts.method=metis would take about 24.8 GB, and 23.8 GB are free; parts.method=fennel takes about 0.1 GB, "
        "and 0.4 GB of disk meanwhile"
    )


def test_advice_where_fennels_table_of_items_and_parts_does_not_fit() -> None:
    sizes, needed = (10**6, 10**7), fennel_bytes((10**6, 10**7), 64)
    assert advice_on_memory("fennel", sizes, 10**8, 64, needed) == ""
    instead = "and 1.0 GB are free; parts.method=range takes some 40 bytes a node; it cuts more edges"
    for method, takes in (("fennel", "3.0"), ("metis", "28.6")):
        told = advice_on_memory(method, sizes, 10**8, 64, 10**9)
        assert told == f"parts.method={method} would take about {takes} GB, {instead}"


def test_fennel_is_refused_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_assign, "free_memory", lambda: 100)
    with pytest.raises(ConfigError, match="fennel would take .* parts.method=range"):
        assign(edges_of([(0, 0), (1, 1)]), (2, 2), "fennel", 2)
    assign(edges_of([(0, 0), (1, 1)]), (2, 2), "range", 2)


def test_hash_depends_on_the_seed_and_spreads_evenly() -> None:
    train = edges_of([(0, 0)])
    parts = assign(train, (4000, 4000), "hash", 8)
    assert np.abs(np.bincount(parts) - 1000).max() < 130
    assert (parts != assign(train, (4000, 4000), "hash", 8, seed=1)).mean() > 0.8


def test_range_keeps_the_order_of_users_and_of_items() -> None:
    parts = assign(edges_of(random_pairs(60, 40, 0.1)), (60, 40), "range", 4)
    assert (np.diff(parts[:60]) >= 0).all()
    assert (np.diff(parts[60:]) >= 0).all()


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 6))
def test_even_ranges_miss_the_even_share_by_one_node_at_most(degrees: list[int], num_parts: int) -> None:
    degree = np.array(degrees, dtype=np.int64)
    parts = even_ranges(degree, num_parts)
    assert len(parts) == len(degree)
    if degrees:
        load = np.bincount(parts, weights=degree + 1, minlength=num_parts)
        assert (np.diff(parts) >= 0).all()
        assert (parts[0] >= 0) & (parts[-1] < num_parts)
        assert load.max() <= (degree + 1).sum() / num_parts + degree.max() + 1


def test_by_hash_the_parts_of_items_do_not_tell_how_many_users_there_are() -> None:
    train = edges_of([(0, 0)])
    few, more = (assign(train, (users, 300), "hash", 4)[users:] for users in (500, 501))
    assert (few == more).all()
    assert (np.bincount(few) > 50).all()
