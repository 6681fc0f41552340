"""The seeds of a private step: users drawn each for themselves, pairs of each of them, and negative items.

Whether a step draws a user, and which pairs, depends on that user and the secret seed alone. Negatives are uniform and
look at no data.

Shape legend: B drawn users of this rank, P predicted pairs of the user who has most, N different negatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.random import Purpose, hash_ids, make_key, uniform
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.movable import Movable
from dist_gat.sampling.negatives import NegativeSampler
from dist_gat.sampling.relabeller import Relabeller
from dist_gat.sampling.seeds import SeedPairs


@dataclass(frozen=True)
class PrivateSeeds(Movable):
    """Positions count among the seed nodes.

    user_at_B, negative_at_N: int64 positions of users and negatives. target_at_BP: of the items that are predicted,
    padded with 0. num_targets_B: int64, how many are real. log_drawn_N: float32 log of how often a negative was drawn.
    """

    user_at_B: Tensor
    target_at_BP: Tensor
    num_targets_B: Tensor
    negative_at_N: Tensor
    log_drawn_N: Tensor


def steps_of_epoch(rate: float) -> int:
    """As many as draw each user once, as expected: a function of public numbers."""
    return math.ceil(1 / rate)


@dataclass(frozen=True)
class PrivateSource:
    """A `SeedSource`. rate: how likely a step draws a user. batch_size: users of a step, as expected from public
    numbers. most: pairs of a user that a step predicts.

    At most half of a user's pairs are predicted, rounded up, so that others are left to represent the user.
    """

    store: GraphStore
    relation: Relation
    negatives: NegativeSampler
    rate: float
    batch_size: int
    most: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return steps_of_epoch(self.rate)

    @cached_property
    def own_pairs(self) -> SeedPairs:
        """The training pairs of this rank's users, by user."""
        parts = [self.store.prepared.parts[number] for number in self.store.own_parts]
        nodes = np.concatenate([np.asarray(part.pairs(self.relation, "train"), np.int64) for part in parts])
        order = np.argsort(nodes[:, 0], kind="stable")
        times = None
        if self.store.prepared.has_times(self.relation):
            times = np.concatenate([np.asarray(part.times(self.relation, "train")) for part in parts])[order]
        return SeedPairs(nodes[order], times)

    @cached_property
    def users(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [U] each: this rank's users with pairs, and the first pair of each."""
        return np.unique(self.own_pairs.nodes[:, 0], return_index=True)

    def draw(self, epoch: int, step: int) -> DrawnUsers:
        users, first = self.users
        count = np.diff(np.append(first, len(self.own_pairs.nodes)))
        is_drawn = uniform(make_key(self.seed, Purpose.POISSON, epoch, step), users) < self.rate
        first, count = first[is_drawn], count[is_drawn]
        num_targets = np.minimum(self.most, (count + 1) // 2)
        owner = np.repeat(np.arange(len(count)), count)
        numbers = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        nodes = self.own_pairs.nodes[numbers]
        key = make_key(self.seed, Purpose.USER_PAIRS, epoch, step)
        turn = hash_ids(key, nodes[:, 0] * self.store.ranges.num_nodes + nodes[:, 1])
        order = np.lexsort((turn, owner))
        place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        chosen = numbers[order[place < np.repeat(num_targets, count)]]
        times = None if self.own_pairs.times is None else self.own_pairs.times[chosen]
        pairs = SeedPairs(self.own_pairs.nodes[chosen], times)
        shared, _ = self.negatives.shared(epoch, step)
        return DrawnUsers(users[is_drawn], pairs, num_targets, *np.unique(shared, return_counts=True), self)


@dataclass(frozen=True)
class DrawnUsers:
    """`DrawnSeeds`: int64 [B] users of this rank, the pairs that are predicted, by user, and how many of each.

    negatives, num_drawn: int64 [N], the different negatives of the step, alike on every rank, and how often each was
    drawn.
    """

    users: np.ndarray
    pairs: SeedPairs
    num_targets: np.ndarray
    negatives: np.ndarray
    num_drawn: np.ndarray
    source: PrivateSource

    @property
    def num_global(self) -> int:
        """Users of a step as expected, not as drawn: a loss must not be divided by what one user changes."""
        return self.source.batch_size

    @property
    def times(self) -> tuple[None, None, None]:
        return None, None, None

    @property
    def predicted(self) -> dict[str, SeedPairs]:
        """Of this rank's users; nobody else reads their edges."""
        return {self.source.relation.name: self.pairs}

    @property
    def nodes(self) -> tuple[np.ndarray, ...]:
        return self.users, self.pairs.nodes[:, 1], self.negatives

    def place(self, at: Sequence[Tensor], relabeller: Relabeller, degree_S: np.ndarray | None) -> PrivateSeeds:
        user_at, target_at, negative_at = at
        num_targets = torch.from_numpy(self.num_targets)
        target_at_BP = torch.zeros(len(user_at), int(self.num_targets.max(initial=1)), dtype=torch.int64)
        target_at_BP[torch.arange(target_at_BP.shape[1]) < num_targets[:, None]] = target_at
        log_drawn = torch.from_numpy(np.log(self.num_drawn).astype(np.float32))
        return PrivateSeeds(user_at, target_at_BP, num_targets, negative_at, log_drawn)
