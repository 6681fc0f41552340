"""`LogWindow`: the steps between two TensorBoard points, summed over the ranks when the point is due.

Shape legend: T steps of the window, L loss terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_gat.exchange.channel import Channel
from dist_gat.exchange.worker import Worker
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.feature_cache import FeatureCache
from dist_gat.train.stopwatch import Stopwatch


class LogWindow:
    """`add` waits neither for the device nor for other ranks; `summarise` waits for both."""

    def __init__(self, worker: Worker, channels: Sequence[Channel], cache: FeatureCache | None = None) -> None:
        """channels: those whose traffic is of training."""
        self.worker, self.channels, self.cache = worker, channels, cache
        self.clock = Stopwatch()
        self.terms: list[dict[str, Tensor]] = []
        self.num_seeds = 0
        self.num_edges = 0
        self.sent_before = self._sent_bytes()

    def add(self, batch: Batch, terms: dict[str, Tensor]) -> None:
        """Record one step: its batch, and this rank's share of its loss terms."""
        self.terms.append({name: term.detach() for name, term in terms.items()})
        self.num_seeds += batch.num_global_seeds
        self.num_edges += batch.num_edges
        for phase, seconds in batch.seconds.items():
            self.clock.seconds[phase] += seconds

    def summarise(self) -> tuple[list[float], dict[str, float]]:
        """The loss of each step, and the values of the TensorBoard point, over all ranks. Collective."""
        names = list(self.terms[0])
        losses_TL = torch.stack([torch.stack(list(terms.values())) for terms in self.terms]).double().cpu()
        requests = self.cache.requests.read() if self.cache else (0, 0, 0)
        counts = torch.tensor([self.num_edges, self._sent_bytes() - self.sent_before, *requests], dtype=torch.float64)
        summed = self.worker.control.sum(torch.cat([losses_TL.flatten(), counts]))
        losses_TL = summed[: -len(counts)].reshape(losses_TL.shape)
        num_edges, sent_bytes, requested, hits, best_hits = summed[-len(counts) :].tolist()
        wall, shares = self.clock.read()
        means = losses_TL.mean(dim=0).tolist()
        point = {
            "train/loss": sum(means),
            **{f"train/loss_{name}": mean for name, mean in zip(names, means, strict=True)},
            "speed/seeds_per_s": self.num_seeds / wall,
            "speed/edges_per_s": num_edges / wall,
            "speed/exchanged_bytes_per_step": sent_bytes / len(self.terms),
            **{f"share/{phase}": share for phase, share in shares.items()},
        }
        if requested:
            point |= {"cache/hit_rate": hits / requested, "cache/best_hit_rate": best_hits / requested}
        return losses_TL.sum(dim=1).tolist(), point

    def _sent_bytes(self) -> int:
        return sum(channel.traffic.sent_bytes for channel in self.channels)
