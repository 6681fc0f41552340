"""`PairNegatives`: random pairs that stand for what did not happen, and the prior that they bring with them.

The j-th draw is a function of its key and j alone, whatever rank computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from dist_gat.base.random import Purpose, make_key, uniform
from dist_gat.graph.part import SPLITS, PreparedGraph
from dist_gat.graph.schema import Relation

SOURCES, TARGETS = 0, 1
# of the key: steps of training have their epoch here
SPLIT_STREAM = 1 << 40


@dataclass(frozen=True)
class PairNegatives:
    """per_pair: draws for each pair that happened, uniform over all sources and targets of the relation."""

    prepared: PreparedGraph
    relation: Relation
    per_pair: int
    seed: int

    def of_step(self, epoch: int, step: int, num_pairs: int) -> np.ndarray:
        """int64 [num_pairs · per_pair, 2]: the same on every rank."""
        return self._draw((epoch, step), num_pairs * self.per_pair)

    def of_split(self, split: str) -> np.ndarray:
        """int64 [m, 2]: for all pairs of a split."""
        count = self.prepared.num_pairs(self.relation, split) * self.per_pair
        return self._draw((SPLIT_STREAM, SPLITS.index(split)), count)

    def without_hits(self, pairs: np.ndarray, part: int, splits: Sequence[str]) -> np.ndarray:
        """Those of int64 [n, 2] pairs, whose sources are of the part, that are in none of the splits."""
        known = [self.prepared.parts[part].pairs(self.relation, split) for split in splits]
        is_hit = np.zeros(len(pairs), bool)
        for happened in known:
            is_hit |= are_among(pairs, happened)
        return pairs[~is_hit]

    @property
    def log_rate(self) -> float:
        """log of how often training draws a pair that did not happen, which is what log-odds have too much of.

        Odds among the drawn pairs are odds among all pairs over this rate (King and Zeng, Political Analysis 2001).
        """
        happened = self.prepared.num_pairs(self.relation, "train")
        ranges = self.prepared.ranges
        all_pairs = ranges.count(self.relation.source) * ranges.count(self.relation.target)
        return math.log(happened * self.per_pair / all_pairs)

    def _draw(self, stream: tuple[int, int], count: int) -> np.ndarray:
        ends = [
            self._nodes(kind, make_key(self.seed, Purpose.NEGATIVES, *stream, end), count)
            for end, kind in ((SOURCES, self.relation.source), (TARGETS, self.relation.target))
        ]
        return np.stack(ends, axis=1)

    def _nodes(self, kind: str, key: np.uint64, count: int) -> np.ndarray:
        """int64 [count]: nodes of a type, each as likely as any other."""
        ranges = self.prepared.ranges
        places = (uniform(key, np.arange(count)) * ranges.count(kind)).astype(np.int64)
        ends = np.cumsum(ranges.counts(kind))
        part = np.searchsorted(ends, places, side="right")
        return ranges.bounds_of(kind)[part, 0] + places - (ends[part] - ranges.counts(kind)[part])


@njit(nogil=True, cache=True)
def are_among(pairs, known):  # type: ignore[no-untyped-def]
    """Whether each of the pairs [n, 2] is among the known ones [m, 2], which are sorted."""
    found = np.zeros(len(pairs), np.bool_)
    for number in range(len(pairs)):
        source, target = pairs[number]
        low, high = 0, len(known)
        while low < high:
            middle = (low + high) // 2
            if known[middle, 0] < source or (known[middle, 0] == source and known[middle, 1] < target):
                low = middle + 1
            else:
                high = middle
        found[number] = low < len(known) and known[low, 0] == source and known[low, 1] == target
    return found
