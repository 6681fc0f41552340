"""Noise as a function of key, step and row."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from dist_gat.privacy.noise import derived_key, derived_seed, normal_noise

KEY, OTHER = (derived_key(bytes(32), purpose) for purpose in ("one", "other"))


def test_noise_is_normal_and_independent_between_rows_steps_and_keys():
    noise = normal_noise(KEY, 3, 0, 20_000, 5)
    assert kstest(noise.ravel(), "norm").pvalue > 0.001
    others = (normal_noise(OTHER, 3, 0, 20_000, 5), normal_noise(KEY, 4, 0, 20_000, 5))
    for other in (*others, np.roll(noise, 1, axis=0), np.roll(noise, 1, axis=1)):
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.015


def test_a_row_has_the_same_noise_whoever_computes_it():
    whole = normal_noise(KEY, 7, 0, 9000, 7)
    pieces = [normal_noise(KEY, 7, first, count, 7) for first, count in ((0, 11), (11, 8000), (8011, 989), (9000, 0))]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_keys_differ_by_purpose_and_secret():
    assert len({KEY, OTHER, derived_key(bytes([1] * 32), "one")}) == 3
    assert 0 <= derived_seed(bytes(32), "draws") < 2**63
