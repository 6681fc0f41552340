"""`UserSample`: the users that a split is measured on: all that have pairs in it, or a fixed sample of them.

Each user has a draw, a function of the seed and its node alone; a sample of n are the n users of the smallest draws. So
it is the same for any model, epoch and number of ranks, and a smaller sample is a part of a larger one.

Shape legend: U users of a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dist_gat.base.metric_counts import ALL_USERS
from dist_gat.base.random import Purpose, hash_ids, make_key
from dist_gat.exchange.channel import Channel
from dist_gat.exchange.route import share_rows
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation


@dataclass(frozen=True)
class UserSample:
    """users: of each of some parts, int64 [U], ascending, those with pairs in the split that are in the sample.

    key: of the draws. last: the largest draw in the sample, None where it has everyone. num_all: users with pairs in
    the split, of all parts.
    """

    users: Mapping[int, np.ndarray]
    key: np.uint64
    last: int | None
    num_all: int

    def has(self, users: np.ndarray) -> np.ndarray:
        """bool, of the shape of int64 `users`, with pairs in the split or without."""
        return np.ones(users.shape, bool) if self.last is None else draws_of(self.key, users) <= self.last

    @property
    def counts(self) -> dict[str, float]:
        """What stands beside the metrics of a sample; nothing beside those of everyone."""
        return {} if self.last is None else {ALL_USERS: float(self.num_all)}


def sample_users(
    prepared: PreparedGraph, relation: Relation, split: str, parts: Sequence[int], num_users: int | None, seed: int,
    channel: Channel,
) -> UserSample:  # fmt: skip
    """`num_users` of those that have pairs of a relation in a split, or all. Collective.

    parts: of this rank. channel: on the CPU.
    """
    users = {part: users_of(prepared.parts[part].pairs(relation, split)) for part in parts}
    num_all = int(channel.sum(torch.tensor([float(sum(map(len, users.values())))])))
    key = make_key(seed, Purpose.USERS)
    if num_users is None or num_users >= num_all:
        return UserSample(users, key, None, num_all)
    own = np.sort(np.concatenate([draws_of(key, mine) for mine in users.values()]))[:num_users]
    draws = np.sort(share_rows(torch.from_numpy(own), channel).numpy())
    last = int(draws[num_users - 1])
    sampled = {part: mine[draws_of(key, mine) <= last] for part, mine in users.items()}
    return UserSample(sampled, key, last, num_all)


def users_of(pairs: np.ndarray) -> np.ndarray:
    """int64 [U]: the users of int64 [m, 2] pairs that are sorted, each once."""
    users = np.asarray(pairs[:, 0])
    return users[np.flatnonzero(np.diff(users, prepend=-1))]


def draws_of(key: np.uint64, users: np.ndarray) -> np.ndarray:
    """int64 of the shape of `users`: a draw from 0 to 2^63 - 1 of each."""
    return (hash_ids(key, users) >> np.uint64(1)).astype(np.int64)
