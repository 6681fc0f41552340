"""Draws are pure functions of keys and counters, and have the distributions that they claim."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dist_gat.base.random import Purpose, fold, hash_ids, make_key, normal_rows, permute, uniform

KEY = make_key(7, Purpose.SHUFFLE, 3)
MIN_P = 1e-4  # all inputs are fixed, so that a test that passes once always does


def test_draws_are_the_same_for_ever() -> None:
    """A run resumes from a cursor alone and a prepared folder keeps its parts, so a release must not change these."""
    assert int(KEY) == 16219036310676577101
    assert hash_ids(KEY, np.array([0, 5])).tolist() == [6525842637213809769, 7855529959275837511]
    assert permute(KEY, np.arange(6), 6).tolist() == [1, 5, 2, 3, 4, 0]
    assert normal_rows(KEY, 4, 1, 2, 1.0)[0].tolist() == pytest.approx([0.4400765, -0.2874347])


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_any_seed_of_64_bits_gives_keys(seed: int) -> None:
    keys = {int(make_key(seed, purpose, epoch, step)) for purpose, epoch, step in product(Purpose, range(9), range(9))}
    assert len(keys) == len(Purpose) * 81


def test_the_order_of_counters_matters() -> None:
    assert make_key(1, Purpose.NEIGHBORS, 2, 3) != make_key(1, Purpose.NEIGHBORS, 3, 2)
    assert make_key(1, Purpose.NEIGHBORS, 2) != make_key(2, Purpose.NEIGHBORS, 1)


def test_every_input_bit_flips_half_of_the_output_bits() -> None:
    rng = np.random.default_rng(0)
    keys, values = rng.integers(0, 2**63, (2, 200), dtype=np.uint64)
    for bit in range(64):
        flip = np.uint64(1 << bit)
        flipped = [int(fold(k ^ flip, v) ^ fold(k, v)) for k, v in zip(keys, values, strict=True)]
        flipped += [int(fold(k, v ^ flip) ^ fold(k, v)) for k, v in zip(keys, values, strict=True)]
        assert 30.5 < np.mean([f.bit_count() for f in flipped]) < 33.5, f"input bit {bit}"


def test_uniform_draws_are_uniform_over_ids_and_over_keys() -> None:
    ids = np.arange(20_000)
    over_ids = uniform(KEY, ids)
    over_keys = np.array([uniform(make_key(0, Purpose.NEGATIVES, n), np.array([11]))[0] for n in range(5000)])
    for draws in (over_ids, over_keys):
        assert stats.kstest(draws, "uniform").pvalue > MIN_P
        assert draws.min() >= 0
        assert draws.max() < 1
    assert abs(np.corrcoef(over_ids[:-1], over_ids[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(over_ids, uniform(make_key(7, Purpose.SHUFFLE, 4), ids))[0, 1]) < 0.03


def test_a_draw_of_an_id_does_not_depend_on_the_others() -> None:
    ids = np.array([5, 900, 3, 2**40])
    for function in (uniform, hash_ids):
        whole = function(KEY, ids)
        np.testing.assert_array_equal(function(KEY, ids[::-1].copy()), whole[::-1])
        np.testing.assert_array_equal(function(KEY, ids[2:]), whole[2:])


@pytest.mark.parametrize("size", [1, 7, 8])
def test_normal_rows_belong_to_ids_wherever_they_are_computed(size: int) -> None:
    whole = normal_rows(KEY, 100, 50, size, 0.5)
    np.testing.assert_array_equal(normal_rows(KEY, 120, 10, size, 0.5), whole[20:30])
    assert whole.dtype == np.float32
    assert normal_rows(KEY, 3, 0, size, 0.5).shape == (0, size)


def test_normal_rows_are_independent_normals() -> None:
    rows = normal_rows(KEY, 0, 4000, 8, 0.25)
    for column in rows.T:
        assert stats.kstest(column / 0.25, "norm").pvalue > MIN_P
    correlation = np.corrcoef(rows.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.06
    assert np.abs(np.corrcoef(rows.T**2) - np.eye(8)).max() < 0.08


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(1, 3000))
def test_permute_is_a_permutation_that_can_start_anywhere(seed: int, size: int) -> None:
    key = make_key(seed, Purpose.SHUFFLE)
    whole = permute(key, np.arange(size), size)
    np.testing.assert_array_equal(np.sort(whole), np.arange(size))
    np.testing.assert_array_equal(permute(key, np.arange(size // 2, size), size), whole[size // 2 :])


@pytest.mark.parametrize("size", [2, 3, 10, 17])
def test_a_place_is_sent_everywhere_equally_often(size: int) -> None:
    images = np.stack([permute(make_key(n, Purpose.SHUFFLE), np.arange(size), size) for n in range(4000)])
    for place in range(min(size, 4)):
        assert stats.chisquare(np.bincount(images[:, place], minlength=size)).pvalue > MIN_P


@pytest.mark.parametrize("size", [17, 60])
def test_two_places_are_sent_to_all_pairs_equally_often(size: int) -> None:
    images = np.stack([permute(make_key(n, Purpose.SHUFFLE), np.array([0, 1]), size) for n in range(20_000)])
    counts = np.bincount(images[:, 0] * size + images[:, 1], minlength=size * size).reshape(size, size)
    assert (np.diag(counts) == 0).all()
    assert stats.chisquare(counts[~np.eye(size, dtype=bool)]).pvalue > MIN_P
