"""DGL's `DataLoader` over the steps of an epoch, sampling the next batches in the background.

A stream is a sampler with a thread and a channel of its own; with n streams, each samples every n-th step. While one
waits for other ranks, another works, and together they use several cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from torch.utils.data import IterableDataset

from dist_gat.config.sections import SamplingConfig
from dist_gat.exchange.channel import open_channel
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.dgl import BlockSampler, DataLoader
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.sampler import SeedBlockSampler

# DGL's prefetch thread has one batch in its queue and samples the next
IN_FLIGHT = 2


class StepRange:
    """The steps [first_step, last_step) of an epoch.

    A run that stops early asks for fewer steps, so that no rank samples a step that the others do not.
    """

    def __init__(self, epoch: int, first_step: int, last_step: int) -> None:
        self.epoch, self.first_step, self.last_step = epoch, first_step, last_step

    def end_at(self, step: int, num_streams: int) -> None:
        """Sample no further than what any rank may have in flight when the model has reached `step`.

        Where all ranks call this at the same step, none of them waits for a sample that another does not draw.
        """
        self.last_step = min(self.last_step, step + IN_FLIGHT * num_streams)

    def __len__(self) -> int:
        return self.last_step - self.first_step


class StreamSteps(IterableDataset):
    """Every n-th step of a range, from its `number`-th on, as (epoch, step) tensors."""

    device = torch.device("cpu")

    def __init__(self, steps: StepRange, number: int, num_streams: int) -> None:
        self.steps, self.number, self.num_streams = steps, number, num_streams

    def __iter__(self) -> Iterator[torch.Tensor]:
        step = self.steps.first_step + self.number
        while step < self.steps.last_step:
            yield torch.tensor([self.steps.epoch, step])
            step += self.num_streams


def count_streams(sampling: SamplingConfig) -> int:
    """Batches that a rank samples at the same time; one without prefetching."""
    return sampling.num_streams if sampling.prefetch else 1


def open_streams(store: GraphStore, num_streams: int, timeout_s: float) -> list[GraphStore]:
    """The store as each stream sees it: with a channel of its own, and everything else shared. Collective."""
    channel = store.channel
    others = [
        open_channel(f"{channel.name} {number}", channel.device, timeout_s, channel.store)
        for number in range(2, num_streams + 1)
    ]
    return [store, *(replace(store, transport=replace(store.transport, channel=other)) for other in others)]


def load_batches(samplers: Sequence[SeedBlockSampler], steps: StepRange, device: torch.device) -> Iterator[Batch]:
    """Batches of `steps` on `device`, in order; the samplers, one a stream, take turns.

    The queue between each sampler and the model holds one batch.
    """
    loaders = []
    for number, sampler in enumerate(samplers):
        mine = StreamSteps(steps, number, len(samplers))
        loaders.append(open_loader(sampler.store, mine, sampler, sampler.sampling.prefetch, device=device))
    return take_turns(loaders)


def take_turns(loaders: Sequence[Iterable[Any]]) -> Iterator[Any]:
    """One batch of each loader in turn, until a loader has none left."""
    for batches in cycle([iter(loader) for loader in loaders]):
        batch = next(batches, None)
        # whatever the other loaders have comes after the missing batch
        if batch is None:
            return
        yield batch


def open_loader(store: GraphStore, seeds: Any, sampler: BlockSampler, prefetch: bool, **options: Any) -> DataLoader:
    """DGL's loader with the settings that our samplers need; it receives `options`."""
    loader = DataLoader(
        store,
        seeds,
        sampler,
        use_prefetch_thread=prefetch,
        pin_prefetcher=False,
        use_alternate_streams=False,
        **options,
    )
    # the launcher sets threads and affinity; without this DGL advises on it at every epoch
    loader.cpu_affinity_enabled = True
    return loader
