"""The kernels: uniform, without replacement, a function of (key, node) alone, and blind to hidden edges."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from dist_gat.random import Purpose, make_key
from dist_gat.sampling.neighbors import HiddenEdges, Relabeller, hide_pairs, sample_rows

FIRST_NODE = 100
NOTHING = hide_pairs(np.zeros((0, 2), dtype=np.int64))
DRAWS = 6000


def rows_of(degrees: list[int], dtype: type = np.int64) -> tuple[np.ndarray, np.ndarray]:
    """CSC rows of nodes FIRST_NODE…: node j has the sources 0, 2, 4, …"""
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    indices = np.concatenate([2 * np.arange(degree) for degree in degrees]).astype(dtype)
    return indptr, indices


def key_of(draw: int) -> np.uint64:
    return make_key(0, Purpose.NEIGHBORS, draw)


def inclusion_counts(degree: int, fan_out: int, hidden: HiddenEdges) -> np.ndarray:
    """How often each of a node's neighbours is in the sample, over many keys."""
    indptr, indices = rows_of([degree])
    node = np.array([FIRST_NODE])
    counts = np.zeros(degree, dtype=np.int64)
    for draw in range(DRAWS):
        sample = sample_rows(indptr, indices, FIRST_NODE, node, fan_out, key_of(draw), hidden)[0]
        sample = sample[sample >= 0]
        assert len(np.unique(sample)) == len(sample)
        counts[sample // 2] += 1
    return counts


@pytest.mark.parametrize(("degree", "fan_out"), [(7, 3), (30, 10), (11, 10), (40, 1)])
def test_every_neighbour_is_drawn_equally_often(degree: int, fan_out: int) -> None:
    counts = inclusion_counts(degree, fan_out, NOTHING)
    assert counts.sum() == DRAWS * fan_out
    # draws without replacement vary less than multinomial ones, by this factor
    spread = (degree - fan_out) / (degree - 1)
    statistic = chisquare(counts).statistic / spread
    assert statistic < 3 * degree, counts
    assert chisquare(counts).pvalue > 1e-4


def test_every_pair_of_neighbours_is_drawn_equally_often() -> None:
    indptr, indices = rows_of([6])
    counts: dict[tuple[int, ...], int] = {}
    for draw in range(DRAWS):
        sample = sample_rows(indptr, indices, FIRST_NODE, np.array([FIRST_NODE]), 2, key_of(draw), NOTHING)[0]
        pair = tuple(sorted(sample.tolist()))
        counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 15
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_hidden_neighbours_never_come_and_the_rest_stays_uniform() -> None:
    # sources 0, 8 and 18 of the node's 0, 2, …, 18 are hidden; 3 is no neighbour at all
    hidden = hide_pairs(np.array([[FIRST_NODE, 0], [8, FIRST_NODE], [FIRST_NODE, 18], [FIRST_NODE, 3]]))
    counts = inclusion_counts(10, 4, hidden)
    assert counts[[0, 4, 9]].tolist() == [0, 0, 0]
    assert chisquare(np.delete(counts, [0, 4, 9])).pvalue > 1e-4


def test_short_rows_are_taken_whole_and_padded() -> None:
    indptr, indices = rows_of([0, 1, 3, 4])
    nodes = FIRST_NODE + np.arange(4)
    sample = sample_rows(indptr, indices, FIRST_NODE, nodes, 4, key_of(0), NOTHING)
    assert sample.tolist() == [[-1] * 4, [0, -1, -1, -1], [0, 2, 4, -1], [0, 2, 4, 6]]


@given(st.data())
def test_a_sample_is_a_function_of_key_and_node(data: st.DataObject) -> None:
    degrees = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=30))
    fan_out = data.draw(st.integers(1, 12))
    nodes = np.array(data.draw(st.lists(st.integers(0, len(degrees) - 1), max_size=40)), dtype=np.int64) + FIRST_NODE
    pairs = np.array(
        data.draw(st.lists(st.tuples(st.sampled_from(range(len(degrees))), st.integers(0, 40)), max_size=30)),
        dtype=np.int64,
    ).reshape(-1, 2) + [FIRST_NODE, 0]
    hidden, key = hide_pairs(pairs), key_of(7)
    indptr, indices = rows_of(degrees)
    everyone = FIRST_NODE + np.arange(len(degrees))
    whole = sample_rows(indptr, indices, FIRST_NODE, everyone, fan_out, key, hidden)
    narrow = rows_of(degrees, np.int32)
    some = sample_rows(*narrow, FIRST_NODE, nodes, fan_out, key, hidden)
    assert np.array_equal(some, whole[nodes - FIRST_NODE])
    hidden_of = {(int(dst), int(src)) for dst, src in pairs}
    for node, row in zip(everyone.tolist(), whole, strict=True):
        free = {2 * j for j in range(degrees[node - FIRST_NODE])} - {s for d, s in hidden_of if d == node}
        taken = row[row >= 0].tolist()
        assert set(taken) <= free
        assert len(taken) == len(set(taken)) == min(fan_out, len(free))


def test_threads_do_not_change_the_sample() -> None:
    rng = np.random.default_rng(0)
    degrees = rng.integers(0, 50, 20_000).tolist()
    indptr, indices = rows_of(degrees)
    nodes = FIRST_NODE + rng.permutation(20_000)
    alone = sample_rows(indptr, indices, FIRST_NODE, nodes, 8, key_of(1), NOTHING)
    with ThreadPoolExecutor(3) as pool:
        together = sample_rows(indptr, indices, FIRST_NODE, nodes, 8, key_of(1), NOTHING, pool)
    assert np.array_equal(alone, together)


@given(st.lists(st.lists(st.integers(-1, 300), max_size=50), max_size=5))
def test_the_relabeller_numbers_like_a_dictionary(groups: list[list[int]]) -> None:
    relabeller, expected = Relabeller(301), {}
    for group in groups:
        numbers = relabeller.add(np.array(group, dtype=np.int64))
        for node, number in zip(group, numbers.tolist(), strict=True):
            assert number == (0 if node < 0 else expected.setdefault(node, len(expected)))
    assert relabeller.nodes.tolist() == list(expected)
