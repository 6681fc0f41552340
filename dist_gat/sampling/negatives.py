"""Negative items of a step, and how often each is expected, for the log-Q correction.

The j-th shared negative of a step is a pure function of (seed, epoch, step, j), whatever rank computes it;
rank r encodes a contiguous share of the j. A seed's own negatives are a function of its place in the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_gat.base.random import Purpose, make_key
from dist_gat.config.sections import NegativesConfig
from dist_gat.graph.part import POPULARITY_EXPONENT
from dist_gat.graph.schema import Relation
from dist_gat.sampling.graph_store import GraphStore

OWN_STREAM, SHARED_STREAM = 0, 1


@dataclass(frozen=True)
class NegativeSampler:
    """Draws negatives from all targets of a relation by the configured distribution."""

    store: GraphStore
    relation: Relation
    config: NegativesConfig
    seed: int

    def shared(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 [num_shared] each: the step's shared negatives, and the rank that encodes each of them."""
        total, world_size = self.config.num_shared, self.store.channel.world_size
        starts = total * np.arange(world_size + 1) // world_size
        if total == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        key = make_key(self.seed, Purpose.NEGATIVES, epoch, step, SHARED_STREAM)
        items = self.store.draw_targets(self.relation, self.config.distribution, key, np.arange(total), is_common=True)
        return items, np.repeat(np.arange(world_size), np.diff(starts))

    def own(self, epoch: int, step: int, places: np.ndarray) -> np.ndarray:
        """int64 [B, K]: the own negatives of the seeds at `places` (int64 [B]) of the step."""
        count = self.config.num_per_seed
        if count == 0:
            return np.zeros((len(places), 0), np.int64)
        draws = places[:, None] * count + np.arange(count)
        key = make_key(self.seed, Purpose.NEGATIVES, epoch, step, OWN_STREAM)
        return self.store.draw_targets(self.relation, self.config.distribution, key, draws.ravel()).reshape(draws.shape)

    def log_expected_count(self, in_degree: np.ndarray, num_global_seeds: int) -> np.ndarray:
        """float32: log of how often one item of this in-degree is expected among a seed's negatives.

        The draws of all kinds are pooled: count(j) = (num_shared + num_per_seed) q(j), and with
        in_batch + seeds · p(j), with q the negative distribution and p the share of messages to the item (the
        balance heuristic of Veach and Guibas, SIGGRAPH 1995, for several samplers of one sum).
        """
        degree = in_degree.astype(np.float64)
        mass = self.store.target_mass(self.relation, self.config.distribution).sum()
        weight = degree**POPULARITY_EXPONENT if self.config.distribution == "popularity" else np.ones_like(degree)
        expected = (self.config.num_shared + self.config.num_per_seed) * weight / mass
        if self.config.in_batch:
            expected += num_global_seeds * degree / self.store.prepared.target_messages(self.relation)
        # an item without a message can stand in a batch where pairs carry none; as if it had one
        least = num_global_seeds / self.store.prepared.target_messages(self.relation) if self.config.in_batch else 1e-30
        return np.log(np.maximum(expected, least)).astype(np.float32)
