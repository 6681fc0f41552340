"""The kernels: uniform, without replacement, a function of (key, node) alone, and blind to hidden edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare

from dist_gat.base.random import Purpose, make_key
from dist_gat.sampling.draws import HiddenEdges, hide_pairs, sample_into, sample_rows
from dist_gat.sampling.relabeller import Relabeller

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


@given(st.lists(st.lists(st.integers(-1, 300), max_size=50), max_size=5), st.sampled_from([301, 2**40]))
def test_the_relabeller_numbers_like_a_dictionary(groups: list[list[int]], num_ids: int) -> None:
    relabeller, expected = Relabeller(301, num_ids), {}
    for group in groups:
        numbers = relabeller.add(np.array(group, dtype=np.int64))
        for node, number in zip(group, numbers.tolist(), strict=True):
            assert number == (0 if node < 0 else expected.setdefault(node, len(expected)))
    assert relabeller.nodes.tolist() == list(expected)
    assert relabeller.find(np.arange(301)).tolist() == [expected.get(node, -1) for node in range(301)]


@pytest.mark.parametrize("hidden_at", [[], [0], [2, 3, 7], [8, 9, 10]], ids=str)
@pytest.mark.parametrize("fan_out", [1, 3, 7])
def test_inclusion_is_neither_less_nor_more_even_than_chance(fan_out: int, hidden_at: list[int]) -> None:
    pairs = np.array([(FIRST_NODE, 2 * at) for at in hidden_at], dtype=np.int64).reshape(-1, 2)
    counts = np.delete(inclusion_counts(11, fan_out, hide_pairs(pairs)), hidden_at)
    free = len(counts)
    share = min(fan_out / free, 1.0)
    if share < 1:
        statistic = ((counts - DRAWS * share) ** 2).sum() / (DRAWS * share * (1 - share)) * (free - 1) / free
        assert 1e-4 < chi2.sf(statistic, free - 1) < 1 - 1e-4
    else:
        assert (counts == DRAWS).all()


@pytest.mark.parametrize("other_key", [0, 1])
def test_nodes_with_the_same_row_and_keys_of_one_node_draw_independently(other_key: int) -> None:
    indptr, indices = rows_of([5] * DRAWS)
    nodes = FIRST_NODE + np.arange(DRAWS)
    one = sample_rows(indptr, indices, FIRST_NODE, nodes, 1, key_of(0), NOTHING)[:, 0]
    other = sample_rows(indptr, indices, FIRST_NODE, nodes, 1, key_of(other_key), NOTHING)[:, 0]
    if other_key == 0:
        one, other = one[::2], other[1::2]
    counts = np.zeros((5, 5))
    np.add.at(counts, (one // 2, other // 2), 1)
    assert chisquare(counts.ravel()).pvalue > 1e-4


def test_an_edge_that_is_hidden_twice_is_hidden_once() -> None:
    """(a, b) and (b, a) are the same edge, both ways."""
    indptr, indices = rows_of([10])
    once = np.array([[FIRST_NODE, 4]])
    for draw in range(50):
        one, other = (
            sample_rows(indptr, indices, FIRST_NODE, np.array([FIRST_NODE]), 9, key_of(draw), hide_pairs(pairs))
            for pairs in (once, np.concatenate([once, once[:, ::-1], once]))
        )
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("size", [1, 7, 299])
def test_the_split_of_rows_changes_nothing(size: int) -> None:
    """Ranks and streams sample some of the rows each."""
    rng = np.random.default_rng(0)
    indptr, indices = rows_of(rng.integers(0, 30, 300).tolist())
    nodes = FIRST_NODE + rng.permutation(300)
    hidden = hide_pairs(np.array([(node, 2) for node in nodes[::3]]))
    pieces = [nodes[start : start + size] for start in range(0, 300, size)]
    whole, *parted = (sample_rows(indptr, indices, FIRST_NODE, x, 6, key_of(9), hidden) for x in (nodes, *pieces))
    assert np.array_equal(np.concatenate(parted), whole)


def test_samples_are_the_same_for_ever() -> None:
    """A resumed run must draw what the run before it would have drawn, also after an update."""
    indptr, indices = rows_of([20])
    sample = sample_rows(indptr, indices, FIRST_NODE, np.array([FIRST_NODE]), 5, key_of(0), NOTHING)
    assert sample.tolist() == [[4, 2, 20, 28, 12]]


def test_the_relabeller_keeps_shapes_and_survives_collisions() -> None:
    nodes = np.arange(6000).reshape(300, 20) * 2**44  # equal low bits of the hash
    numbers = np.arange(6000).reshape(300, 20)
    relabeller = Relabeller(6000, 2**62)
    assert np.array_equal(relabeller.add(nodes), numbers)
    assert np.array_equal(relabeller.add(nodes[::-1, ::2]), numbers[::-1, ::2])


def test_a_table_by_id_takes_no_more_memory_than_a_hash_table() -> None:
    for num_ids, shape in ((4 * 2048, (4 * 2048, 1)), (4 * 2048 + 1, (2048, 2))):
        relabeller = Relabeller(1000, num_ids)
        assert relabeller._table.shape == shape
        assert relabeller._table.nbytes <= 16 * 2048
        assert relabeller.add(np.array([num_ids - 1, 0])).tolist() == [0, 1]


@pytest.mark.parametrize("place", [-1, 2])
def test_a_place_outside_of_the_array_is_refused(place: int) -> None:
    indptr, indices = np.array([0, 1, 2]), np.array([1, 0])
    out = np.full((2, 3), 7, np.int32)
    sample_into(out, np.array([1]), indptr, indices, 0, np.array([0]), key_of(0), NOTHING)
    assert out.tolist() == [[7, 7, 7], [1, -1, -1]]
    with pytest.raises(AssertionError, match="outside"):
        sample_into(out, np.array([place]), indptr, indices, 0, np.array([0]), key_of(0), NOTHING)


@pytest.mark.parametrize("node", [50, 2**40])
def test_an_id_outside_of_the_table_is_refused(node: int) -> None:
    relabeller = Relabeller(50, 50)
    with pytest.raises(IndexError, match="outside of the graph"):
        relabeller.add(np.array([3, node]))
    assert relabeller.find(np.array([-1, node])).tolist() == [-1, -1]
