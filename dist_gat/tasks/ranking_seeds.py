"""The seeds of ranking: pairs of a user and an item that it met, and negative items.

A user is the source of the relation, an item its target.

Shape legend: B seeds of this rank, N shared negatives of this rank, K negatives of each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.pairs import sort_pairs
from dist_gat.config.sections import NegativesConfig
from dist_gat.exchange.route import share_rows
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.movable import Movable
from dist_gat.sampling.negatives import NegativeSampler
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.seeds import SeedPairs, StepPairs


@dataclass(frozen=True)
class Candidates(Movable):
    """The C different items that all seeds of all ranks share as negatives. Each row is offered by one rank.

    offered_at_M:   int64 positions among this rank's seed nodes of the M rows that it offers.
    offered_counts: how many rows each rank offers; C in all.
    item_C:         int64 node IDs in the order of the offered rows, to mask accidental hits.
    num_drawn_C:    float32, how often the step drew the item.
    log_count_C:    float32 log of how often a step is expected to draw the item as a negative.
    """

    offered_at_M: Tensor
    offered_counts: tuple[int, ...]
    item_C: Tensor
    num_drawn_C: Tensor
    log_count_C: Tensor


@dataclass(frozen=True)
class RankingSeeds(Movable):
    """Positions (`*_at_*`) count among the seed nodes.

    user_at_B, item_at_B, shared_at_N, own_at_BK: int64 positions of users, positives and negatives.
    item_B, own_BK:   int64 node IDs of positives and of the seeds' own negatives, to mask accidental hits.
    log_count_BK:     float32 log of how often a step is expected to draw the item as a negative.
    candidates:       the negatives that the seeds of all ranks share.
    """

    user_at_B: Tensor
    item_at_B: Tensor
    shared_at_N: Tensor
    own_at_BK: Tensor
    item_B: Tensor
    own_BK: Tensor
    log_count_BK: Tensor
    candidates: Candidates


@dataclass(frozen=True)
class RankingSource:
    """A `SeedSource`: the training pairs in the order of the epoch, and negatives for each step."""

    step_pairs: StepPairs
    negatives: NegativeSampler

    @property
    def steps_per_epoch(self) -> int:
        return self.step_pairs.steps_per_epoch

    def draw(self, epoch: int, step: int) -> DrawnPairs:
        numbers, rank_of_pair = self.step_pairs.draw(epoch, step)
        rank = self.negatives.store.channel.rank
        places = np.flatnonzero(rank_of_pair == rank)
        shared, rank_of_shared = self.negatives.shared(epoch, step)
        own_BK = self.negatives.own(epoch, step, places)
        pairs = self.step_pairs.pairs(numbers)
        return DrawnPairs(
            self.negatives, pairs.nodes, pairs.times, rank_of_pair, places, shared, rank_of_shared, own_BK
        )  # fmt: skip


def ranking_source(
    store: GraphStore, relation: Relation, negatives: NegativesConfig, batch_size: int, seed: int, run: int = 1
) -> RankingSource:
    """batch_size: pairs of a step over all ranks. run: see `StepPairs`."""
    return RankingSource(
        StepPairs(store, relation, batch_size, seed, run), NegativeSampler(store, relation, negatives, seed)
    )  # fmt: skip


@dataclass(frozen=True)
class DrawnPairs:
    """One step's pairs over all ranks, int64 [n, 2], with times, int64 [n], and the rank of each; this rank's are at
    `places`, int64 [B].

    shared: int64 [m], the step's shared negatives, with the rank that encodes each. own_BK: int64 node IDs.
    """

    negatives: NegativeSampler
    pairs: np.ndarray
    times_of_pairs: np.ndarray | None
    rank_of_pair: np.ndarray
    places: np.ndarray
    shared: np.ndarray
    rank_of_shared: np.ndarray
    own_BK: np.ndarray

    @property
    def num_global(self) -> int:
        return len(self.pairs)

    @property
    def times(self) -> tuple[np.ndarray | None, ...]:
        """Of the users; items are compared with them."""
        return None if self.times_of_pairs is None else self.times_of_pairs[self.places], None, None, None

    @property
    def predicted(self) -> dict[str, SeedPairs]:
        return {self.negatives.relation.name: SeedPairs(self.pairs, self.times_of_pairs)}

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        """This rank's users, items, shared negatives and own negatives."""
        own_shared = self.shared[self.rank_of_shared == self.negatives.store.channel.rank]
        return self.pairs[self.places, 0], self.pairs[self.places, 1], own_shared, self.own_BK

    def place(self, at: Sequence[Tensor], relabeller: Relabeller, degree_S: np.ndarray | None) -> RankingSeeds:
        user_at, item_at, shared_at, own_at = at
        candidates = self.candidates(relabeller, degree_S)
        # without in-degrees the draws are uniform, and their expected count is the same for every item
        degree_BK = np.zeros(self.own_BK.shape, np.int64) if degree_S is None else degree_S[own_at.numpy()]
        return RankingSeeds(
            user_at_B=user_at,
            item_at_B=item_at,
            shared_at_N=shared_at,
            own_at_BK=own_at,
            item_B=torch.from_numpy(self.pairs[self.places, 1]),
            own_BK=torch.from_numpy(self.own_BK),
            log_count_BK=torch.from_numpy(self.negatives.log_expected_count(degree_BK, self.num_global)),
            candidates=candidates,
        )

    def candidates(self, relabeller: Relabeller, degree_S: np.ndarray | None) -> Candidates:
        """The distinct items that all seeds share as negatives; the same on every rank. Collective."""
        negatives = self.negatives
        channel = negatives.store.channel
        in_batch = slice(None) if negatives.config.in_batch else slice(0)
        items, ranks = sort_pairs(
            np.concatenate([self.shared, self.pairs[in_batch, 1]]),
            np.concatenate([self.rank_of_shared, self.rank_of_pair[in_batch]]),
        )
        drawn, first, num_drawn = np.unique(items, return_index=True, return_counts=True)
        # where several ranks drew an item, the first one's row serves all: they sample the same neighbours
        rank_of_row = ranks[first]
        by_rank = np.argsort(rank_of_row, kind="stable")
        offered, rank_of_row, num_drawn = drawn[by_rank], rank_of_row[by_rank], num_drawn[by_rank]
        counts = np.bincount(rank_of_row, minlength=channel.world_size).tolist()
        offered_at = relabeller.find(offered[rank_of_row == channel.rank])
        degree_of_row = np.zeros(len(offered), np.int64)
        if degree_S is not None:
            degree_of_row = share_rows(torch.from_numpy(degree_S[offered_at]), channel, counts).numpy()
        log_count = negatives.log_expected_count(degree_of_row, self.num_global)
        return Candidates(
            torch.from_numpy(offered_at),
            tuple(counts),
            torch.from_numpy(offered),
            torch.from_numpy(num_drawn.astype(np.float32)),
            torch.from_numpy(log_count),
        )
