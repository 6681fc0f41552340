"""The kernel that draws edges with what they carry: by time, by weight, before a limit, past hidden ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from dist_gat.base.random import Purpose, make_key
from dist_gat.sampling.draws import NO_TIMES, hide_pairs, sample_rows
from dist_gat.sampling.edge_draws import NO_LIMITS, count_before
from tests.sampling.drawn_edges import DrawnEdges, Way, draw_edges, draw_ways

NODE = 50
NOTHING = hide_pairs(np.zeros((0, 2), np.int64))
NO_WEIGHTS = np.zeros(0, np.float32)
SECOND = 10**6


def key_of(draw: int) -> np.uint64:
    return make_key(0, Purpose.NEIGHBORS, draw)


def draw_of(
    sources: list[int], times: list[int] | None = None, weights: list[float] | None = None, **settings: Any
) -> DrawnEdges:
    """What a node with one row draws; times in seconds."""
    indptr, node = np.array([0, len(sources)]), np.array([NODE])
    chosen = {"fan_out": 3, "key": key_of(0), "hidden": NOTHING, "limit": None, "strategy": "uniform", **settings}
    limits = NO_LIMITS if chosen["limit"] is None else np.array([chosen["limit"] * SECOND])
    return draw_edges(
        indptr, np.array(sources), NO_TIMES if times is None else np.array(times) * SECOND,
        NO_WEIGHTS if weights is None else np.array(weights, np.float32), np.array([0]), node, chosen["fan_out"],
        chosen["key"], chosen["hidden"], limits, chosen["strategy"],
    )  # fmt: skip


# of the same time in ascending order
SOURCES, TIMES = [4, 1, 9, 7, 2, 8], [90, 70, 70, 40, 39, 8]


def test_the_newest_come_first_with_rank_and_age() -> None:
    found = draw_of(SOURCES, TIMES, strategy="recent")
    assert found.sources.tolist() == [[4, 1, 9]]
    assert found.edges.tolist() == [[0, 1, 2]]
    assert found.ranks.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(found.ages, np.log2([[1, 21, 21]]), rtol=1e-6)


def test_what_is_hidden_is_passed_over_and_counts_for_no_rank() -> None:
    hidden = hide_pairs(np.array([[NODE, 4], [NODE, 1]]), np.array([90, 70]) * SECOND)
    found = draw_of(SOURCES, TIMES, hidden=hidden, strategy="recent")
    assert found.sources.tolist() == [[9, 7, 2]]
    assert found.ranks.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(found.ages, np.log2([[1, 31, 32]]), rtol=1e-6)


@pytest.mark.parametrize(
    ("limit", "expected"), [(91, [4, 1, 9]), (90, [1, 9, 7]), (70, [7, 2, 8]), (40, [2, 8, -1]), (8, [-1, -1, -1])]
)
def test_a_limit_is_the_end_of_what_is_seen(limit: int, expected: list[int]) -> None:
    found = draw_of(SOURCES, TIMES, limit=limit, strategy="recent")
    assert found.sources[0].tolist() == expected
    assert count_before(np.array([0, 6]), np.array(TIMES) * SECOND, np.array([0]), np.array([limit * SECOND])) == sum(
        time < limit for time in TIMES
    )
    uniform = draw_of(SOURCES, TIMES, limit=limit, fan_out=6)
    assert sorted(x for x in uniform.sources[0].tolist() if x >= 0) == sorted(
        source for source, time in zip(SOURCES, TIMES, strict=True) if time < limit
    )


@given(st.integers(0, 500), st.integers(1, 12), st.integers(1, 6))
def test_without_times_it_draws_what_the_other_kernel_does(draw: int, degree: int, fan_out: int) -> None:
    sources = list(range(0, 2 * degree, 2))
    hidden = hide_pairs(np.array([[NODE, sources[degree // 2]]]))
    expected = sample_rows(
        np.array([0, degree]), np.array(sources), NODE, np.array([NODE]), fan_out, key_of(draw), hidden
    )
    np.testing.assert_array_equal(draw_of(sources, fan_out=fan_out, key=key_of(draw), hidden=hidden).sources, expected)


def test_weights_are_drawn_in_proportion_and_zeros_never() -> None:
    weights, counts = [5.0, 0.0, 1.0, 2.0, -3.0, 2.0], np.zeros(6)
    for number in range(5000):
        found = draw_of(SOURCES, weights=weights, fan_out=1, key=key_of(number), strategy="weight")
        counts[found.edges[0, 0]] += 1
    assert counts[[1, 4]].tolist() == [0, 0]
    assert chisquare(counts[[0, 2, 3, 5]], 500 * np.array([5, 1, 2, 2])).pvalue > 1e-4
    found = draw_of(SOURCES, weights=weights, fan_out=6, strategy="weight")
    assert sorted(found.sources[0].tolist()) == sorted([-1, -1, 4, 9, 7, 8])


def test_weights_are_drawn_without_replacement_past_hidden_ones() -> None:
    hidden = hide_pairs(np.array([[NODE, 0], [NODE, 8]]))
    sources, weights = [0, 2, 4, 6, 8, 10], [9.0, 1.0, 1.0, 1.0, 9.0, 0.0]
    for number in range(200):
        found = draw_of(
            sources, weights=weights, fan_out=2, key=key_of(number), strategy="weight", hidden=hidden
        ).sources[0]  # fmt: skip
        assert set(found.tolist()) < {2, 4, 6}
        assert len(set(found.tolist())) == 2


@pytest.mark.parametrize("strategy", ["uniform", "recent", "weight"])
@pytest.mark.parametrize("is_limited", [False, True])
def test_many_rows_are_drawn_as_each_alone(strategy: str, is_limited: bool) -> None:
    rng = np.random.default_rng(0)
    degrees = rng.integers(0, 9, 700)
    indptr = np.append(0, np.cumsum(degrees))
    times = np.concatenate([np.sort(rng.integers(0, 99, degree))[::-1] for degree in degrees]) * SECOND
    sources = np.concatenate([np.sort(rng.choice(50, degree, replace=False)) for degree in degrees])
    weights, nodes = rng.random(len(times)).astype(np.float32), 100 + np.arange(700)
    pairs = [(100 + row, indptr[row]) for row in range(0, 700, 7) if degrees[row]]
    hidden = hide_pairs(
        np.array([(node, sources[edge]) for node, edge in pairs]), times[[edge for _, edge in pairs]]
    )  # fmt: skip
    limits = rng.integers(20, 99, 700) * SECOND if is_limited else NO_LIMITS
    read = lambda rows: draw_edges(  # noqa: E731
        indptr, sources, times, weights, rows, nodes[rows], 4, key_of(0), hidden,
        limits[rows] if is_limited else limits, strategy,
    )  # fmt: skip
    together, alone = read(np.arange(700)), [read(np.array([row])) for row in range(700)]
    for name, values in together._asdict().items():
        np.testing.assert_array_equal(values, np.concatenate([getattr(one, name) for one in alone]), err_msg=name)
    drawn = together.sources >= 0
    np.testing.assert_array_equal(together.sources[drawn], sources[together.edges[drawn]])
    np.testing.assert_array_equal(together.weights[drawn], weights[together.edges[drawn]])


@given(st.integers(0, 500), st.integers(1, 200), st.booleans())
def test_edge_types_are_drawn_together_as_each_alone(draw: int, num_nodes: int, is_limited: bool) -> None:
    """Nodes of two types: three edge types lead to the first, one of them hides edges, and one to the second."""
    rng = np.random.default_rng(draw)
    ways = [
        Way(0, 3, "recent", has_time=True, has_weight=False),
        Way(0, 4, "weight", has_time=False, has_weight=True),
        Way(0, 2, "uniform", has_time=True, has_weight=True),
        Way(1, 5, "uniform", has_time=False, has_weight=False),
    ]
    sizes, slots = (150, 60), (3, 1)
    degrees = rng.integers(0, 9, sizes[0] * slots[0] + sizes[1] * slots[1])
    indptr = np.append(0, np.cumsum(degrees))
    times = np.concatenate([np.sort(rng.integers(0, 99, degree))[::-1] for degree in degrees]) * SECOND
    sources = np.concatenate([np.sort(rng.choice(50, degree, replace=False)) for degree in degrees])
    weights, nodes = rng.random(len(times)).astype(np.float32), NODE + rng.integers(0, sum(sizes), num_nodes)
    first_rows = np.array([0, sizes[0] * slots[0]])
    kinds = (nodes >= NODE + sizes[0]).astype(np.int64)
    rows = first_rows[kinds] + (nodes - NODE - kinds * sizes[0]) * np.array(slots)[kinds]
    pairs = [(node, indptr[row + 2]) for node, row in zip(nodes[kinds == 0], rows[kinds == 0], strict=True)]
    pairs = [(node, edge) for node, edge in pairs[::3] if edge in indptr[:-1][degrees > 0]]
    edges = [edge for _, edge in pairs]
    hidden = hide_pairs(np.array([(n, sources[e]) for n, e in pairs]), times[edges]) if pairs else NOTHING
    limits = rng.integers(20, 99, num_nodes) * SECOND if is_limited else NO_LIMITS
    keys = [key_of(draw + number) for number in range(len(ways))]
    found = draw_ways(indptr, sources, times, weights, sizes, nodes, ways, keys, [2], hidden, limits)
    for i, (node, row, kind) in enumerate(zip(nodes, rows, kinds, strict=True)):
        expected = []
        for number, way in enumerate(ways):
            if way.target == kind:
                alone = draw_edges(
                    indptr, sources, times if way.has_time else NO_TIMES, weights if way.has_weight else NO_WEIGHTS,
                    np.array([row + number % 3]), np.array([node]), way.fan_out, keys[number],
                    hidden if number == 2 else NOTHING, limits[i : i + 1] if way.has_time else NO_LIMITS, way.strategy,
                )  # fmt: skip
                many = [x[0][alone.sources[0] >= 0] for x in alone]
                expected += [(number, *one) for one in zip(*many, strict=True)]
        assert list(zip(*(values[i][found.sources[i] >= 0] for values in found), strict=True)) == expected
        assert (found.sources[i][len(expected) :] == -1).all()
        assert all((values[i][len(expected) :] == 0).all() for values in found[2:])
