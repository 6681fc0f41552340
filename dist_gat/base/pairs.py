"""Sorts pairs of numbers packed into one number each, several times as fast as sorting two columns; finds some.

Shape legend: E pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def sort_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [E] each: the pairs sorted by first and then second number. All numbers must be non-negative."""
    key, bits = _key(first, second)
    # pairs are often sorted already, and checking takes a tenth of the time of sorting
    if not (key[1:] >= key[:-1]).all():
        key.sort()
    return key >> bits, key & ((1 << bits) - 1)


def order_of_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [E]: the positions of the pairs in sorted order, as `np.argsort`; equal pairs come in any order."""
    return np.argsort(_key(first, second)[0])


def have_repeats(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether any pair of non-negative int64 numbers occurs twice."""
    key = np.sort(_key(first, second)[0])
    return bool((key[1:] == key[:-1]).any())


def pairs_of(pairs: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """int64 [n, 2]: those of sorted int64 [m, 2] pairs whose first number is one of int64 `firsts`, which ascend.

    Reads no more than it returns, so the pairs may be a file. All of them are returned as they are.
    """
    start, stop = _bounds(pairs, firsts)
    count = stop - start
    if count.sum() == len(pairs):
        return pairs
    return pairs[np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)]


@njit(nogil=True, cache=True)
def _bounds(pairs, firsts):  # type: ignore[no-untyped-def]
    """For each of `firsts`, the first of its pairs and the one behind its last."""
    start, stop = np.empty(len(firsts), np.int64), np.empty(len(firsts), np.int64)
    at = 0
    for number in range(len(firsts)):
        for bound, first in ((start, firsts[number]), (stop, firsts[number] + 1)):
            # ever longer steps, then halves of the last one
            step = 1
            while at + step < len(pairs) and pairs[at + step, 0] < first:
                at += step
                step *= 2
            low, high = at, min(at + step, len(pairs))
            while low < high:
                middle = (low + high) // 2
                if pairs[middle, 0] < first:
                    low = middle + 1
                else:
                    high = middle
            at = low
            bound[number] = at
    return start, stop


def fit_together(most_first: int, most_second: int) -> bool:
    """Whether pairs with numbers up to these fit 63 bits, as all functions here need."""
    return most_first.bit_length() + most_second.bit_length() <= 63


def _key(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, int]:
    """int64 [E] with the first number above the bits of the second, and the number of these bits."""
    most_first, most_second = (int(numbers.max(initial=0)) for numbers in (first, second))
    assert fit_together(most_first, most_second), "the numbers of a pair fit 63 bits together"
    bits = most_second.bit_length()
    key = first.astype(np.int64) << bits
    key |= second
    return key, bits
