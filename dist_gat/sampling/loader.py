"""DGL's `DataLoader` over the steps of an epoch, sampling the next batches in the background."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset

from dist_gat.dgl import DataLoader
from dist_gat.sampling.sampler import SeedBlockSampler

# DGL's prefetch thread holds one batch in its queue and the next in its hand
IN_FLIGHT = 2


class StepRange(IterableDataset):
    """The steps [first_step, last_step) of an epoch, as (epoch, step) tensors.

    A run that stops early asks for fewer steps, so that no rank samples a step that the others do not.
    """

    device = torch.device("cpu")

    def __init__(self, epoch: int, first_step: int, last_step: int) -> None:
        self.epoch, self.first_step, self.last_step = epoch, first_step, last_step

    def __iter__(self) -> Iterator[torch.Tensor]:
        step = self.first_step
        while step < self.last_step:
            yield torch.tensor([self.epoch, step])
            step += 1

    def end_at(self, step: int) -> None:
        """Sample no further than what any rank may have in flight when the model has reached `step`.

        Where all ranks say so at the same step, none of them waits for a sample that another does not draw.
        """
        self.last_step = min(self.last_step, step + IN_FLIGHT)

    def __len__(self) -> int:
        return self.last_step - self.first_step


def open_loader(sampler: SeedBlockSampler, steps: StepRange, device: torch.device) -> DataLoader:
    """Batches of `steps` on `device`, in order. The queue between the sampler and the model holds one batch."""
    loader = DataLoader(
        sampler.store,
        steps,
        sampler,
        device=device,
        use_prefetch_thread=sampler.sampling.prefetch,
        pin_prefetcher=False,
        use_alternate_streams=False,
    )
    # the launcher sets threads and affinity; without this DGL advises on it at every epoch
    loader.cpu_affinity_enabled = True
    return loader
