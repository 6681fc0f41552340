"""Counter-based randomness: every draw is a pure function of a key and counters, never of a generator's state.

A key is 64 bits folded from (seed, purpose, epoch, step, ...). The draw for a node hashes the key with the
node's ID, so it does not depend on which worker or thread makes it, nor on what was drawn before.
The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
Generators, OOPSLA 2014); the permutation is a Feistel network with cycle walking (Black, Rogaway:
Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numba import njit

from dist_gat.kernels.large_pages import large_zeros

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIER_A = np.uint64(0xBF58476D1CE4E5B9)
MULTIPLIER_B = np.uint64(0x94D049BB133111EB)
FEISTEL_ROUNDS = 6


class Purpose(IntEnum):
    """What a draw is for. Different purposes never share a random number."""

    SHUFFLE = 1
    NEIGHBORS = 2
    NEGATIVES = 3
    EMBEDDING = 4
    WEIGHTS = 5
    SPLIT = 6
    ASSIGNMENT = 7
    EXPLANATION = 8
    REPORT = 9
    SEARCH = 10
    SPECTRAL = 11
    USERS = 12
    SPREAD = 13
    ID_DROPOUT = 14
    PRUNING = 15
    HIDDEN_COLUMNS = 16
    TEXTS = 17
    POISSON = 18
    USER_PAIRS = 19


@njit("uint64(uint64, uint64)", nogil=True, cache=True)
def fold(key, value):  # type: ignore[no-untyped-def]
    """Hash a uint64 key with one more uint64 counter."""
    x = (key + GOLDEN) ^ (value * MULTIPLIER_A)
    x = (x ^ (x >> np.uint64(30))) * MULTIPLIER_A
    x = (x ^ (x >> np.uint64(27))) * MULTIPLIER_B
    x = x ^ (x >> np.uint64(31))
    x = (x + GOLDEN) * MULTIPLIER_B
    return x ^ (x >> np.uint64(29))


@njit("float64(uint64)", nogil=True, cache=True)
def to_unit(bits):  # type: ignore[no-untyped-def]
    """uint64 bits → float64 in [0, 1), with 53 random bits."""
    return (bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


def make_key(seed: int, purpose: Purpose, *counters: int) -> np.uint64:
    """The key of one stream of draws, from the run's seed, the purpose and any counters (epoch, step, hop)."""
    key = fold(seed, int(purpose))
    for counter in counters:
        key = fold(key, counter)
    return np.uint64(key)


@njit(nogil=True, cache=True)
def hash_ids(key: np.uint64, ids: np.ndarray) -> np.ndarray:
    """int64 [n] → uint64 [n], one independent hash for each ID."""
    out = np.empty(ids.shape[0], dtype=np.uint64)
    for i in range(ids.shape[0]):
        out[i] = fold(key, np.uint64(ids[i]))
    return out


@njit(nogil=True, cache=True)
def uniform(key: np.uint64, ids: np.ndarray) -> np.ndarray:
    """int64 [n] → float64 [n] in [0, 1), one independent draw for each ID."""
    out = np.empty(ids.shape[0], dtype=np.float64)
    for i in range(ids.shape[0]):
        out[i] = to_unit(fold(key, np.uint64(ids[i])))
    return out


def normal_rows(key: np.uint64, first_id: int, num_rows: int, size: int, std: float) -> np.ndarray:
    """float32 [num_rows, size] from N(0, std²); row j belongs to ID `first_id + j` whoever computes it."""
    out = large_zeros((num_rows, size), np.float32)
    _fill_normal(key, first_id, std, out)
    return out


@njit(nogil=True, cache=True)
def _fill_normal(key, first_id, std, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        row_key = fold(key, np.uint64(first_id + row))
        for column in range(0, out.shape[1], 2):
            # Box-Muller: two normals from two uniforms; 1 - u avoids log(0)
            radius = std * math.sqrt(-2.0 * math.log(1.0 - to_unit(fold(row_key, np.uint64(column)))))
            angle = 2.0 * math.pi * to_unit(fold(row_key, np.uint64(column + 1)))
            out[row, column] = radius * math.cos(angle)
            if column + 1 < out.shape[1]:
                out[row, column + 1] = radius * math.sin(angle)


@njit(nogil=True, cache=True)
def permute(key: np.uint64, positions: np.ndarray, size: int) -> np.ndarray:
    """Where a pseudorandom permutation of range(size) sends each of `positions`; int64 in, int64 out.

    A shuffle of any length that needs no memory and can start anywhere.
    """
    half_bits = 1
    while (1 << (2 * half_bits)) < size:
        half_bits += 1
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    out = np.empty(positions.shape[0], dtype=np.int64)
    for i in range(positions.shape[0]):
        value = np.uint64(positions[i])
        while True:
            left, right = value >> shift, value & mask
            for r in range(FEISTEL_ROUNDS):
                left, right = right, left ^ (fold(fold(key, np.uint64(r)), right) & mask)
            value = (left << shift) | right
            if value < np.uint64(size):
                break
        out[i] = np.int64(value)
    return out
