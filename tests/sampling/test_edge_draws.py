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
from dist_gat.sampling.edge_draws import (
    NO_LIMITS,
    DrawnEdges,
    clear_edges,
    close_ranks,
    count_before,
    draw_edges,
    put_edges,
)

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


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("needed", [[1, 2, 3, 4, 5], [0, 0, 1, 0, 2], [0, 0, 0, 0, 0]])
def test_what_is_drawn_is_put_beside_the_sources(kind: type, needed: list[int]) -> None:
    rng, width, first = np.random.default_rng(1), 6, 2
    found = DrawnEdges(
        np.array([[5, 8, -1], [-1, -1, -1], [7, 6, 9]]), rng.integers(0, 20, (3, 3)),
        rng.integers(0, 99, (3, 3)).astype(np.int32), rng.random((3, 3), np.float32), rng.random((3, 3), np.float32),
    )  # fmt: skip
    categories, places = rng.integers(0, 99, 20).astype(np.uint16), np.array([3, 0, 1])
    out = np.full((4, width * (1 + max(needed))), 77, kind)
    clear_edges(out, places, width)
    put_edges(out, places, width, first, np.array(needed), 4, *found, categories)
    expected = np.full_like(out, 77)
    expected[places] = 0
    expected[places, :width] = -1
    bits = lambda numbers: numbers.view(np.int32)  # noqa: E731
    carried = [np.full((3, 3), 4), categories[found.edges], bits(found.weights), bits(found.ages), found.ranks]
    for i, j in np.argwhere(found.sources >= 0):
        expected[places[i], first + j] = found.sources[i, j]
        for block, values in zip(needed, carried, strict=True):
            if block:
                expected[places[i], block * width + first + j] = values[i, j]
    np.testing.assert_array_equal(out, expected)


@given(st.lists(st.lists(st.sampled_from([-1, 3, 8]), min_size=5, max_size=5), max_size=6))
def test_gaps_between_edge_types_are_closed(rows: list[list[int]]) -> None:
    out = np.array([[*row, *range(10 * number, 10 * number + 5)] for number, row in enumerate(rows)]).reshape(-1, 10)
    before = out.copy()
    close_ranks(out, 5)
    for row, old in zip(out, before, strict=True):
        kept = [(source, carried) for source, carried in zip(old[:5], old[5:], strict=True) if source >= 0]
        assert row[:5].tolist() == [source for source, _ in kept] + [-1] * (5 - len(kept))
        assert row[5 : 5 + len(kept)].tolist() == [carried for _, carried in kept]
