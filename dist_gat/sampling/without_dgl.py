"""What we need of DGL's `BlockSampler` and `DataLoader`, where DGL can't be loaded. Batches are the same, bit for bit.

The loader stands on torch's, as DGL's does, so that both draw alike from torch's own random numbers.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchLoader


class BlockSampler:
    """Makes a batch of seeds; the batch has a method `to(device)`."""

    def sample(self, g: Any, seeds: torch.Tensor, exclude_eids: Any = None) -> Any:
        raise NotImplementedError


class DataLoader(TorchLoader):
    """The batches that a sampler makes of a graph and of the seeds of each step, on a device.

    seeds: tensors of seeds, a step each; or one tensor, which is cut into tensors of `batch_size`.
    use_prefetch_thread: a thread samples the next batch while one waits in a queue.
    """

    def __init__(
        self, graph: Any, indices: Any, graph_sampler: BlockSampler, device: torch.device | str = "cpu",
        batch_size: int = 1, use_prefetch_thread: bool = False,
        pin_prefetcher: bool = False, use_alternate_streams: bool = False,
    ) -> None:  # fmt: skip
        assert not pin_prefetcher, "as our calls of DGL's have it"
        assert not use_alternate_streams
        self.device, self.use_prefetch_thread = torch.device(device), use_prefetch_thread
        steps = indices.split(batch_size) if isinstance(indices, torch.Tensor) else indices
        super().__init__(steps, batch_size=None, collate_fn=partial(graph_sampler.sample, graph))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = (batch.to(self.device, non_blocking=True) for batch in super().__iter__())
        return Prefetched(batches) if self.use_prefetch_thread else batches


class Prefetched(Iterator[Any]):
    """What an iterator yields, one ahead of who asks: a thread has one in a queue and makes the next.

    An error in the thread is raised here, in its turn. Whoever lets go of this ends the thread.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self.ready: Ready = queue.Queue(maxsize=1)
        self.given_up = threading.Event()
        self.end: BaseException | None = None
        self.thread = threading.Thread(target=fill, args=(batches, self.ready, self.given_up), daemon=True)
        self.thread.start()

    def __next__(self) -> Any:
        if self.end is None:
            batch, self.end = self.ready.get()
        if self.end is not None:
            raise self.end
        return batch

    def __del__(self) -> None:
        # threads no longer run when the interpreter ends
        if sys.is_finalizing():
            return
        self.given_up.set()
        with suppress(queue.Empty):  # makes room for what the thread may be about to put
            self.ready.get_nowait()
        self.thread.join()


Ready = queue.Queue[tuple[Any, BaseException | None]]


def fill(batches: Iterator[Any], ready: Ready, given_up: threading.Event) -> None:
    """Put each batch, and then what ended them, `StopIteration` or an error. Holds no `Prefetched`, which ends it."""
    while not given_up.is_set():
        try:
            batch, end = next(batches), None
        except BaseException as err:
            batch, end = None, err
        ready.put((batch, end))
        if end is not None:
            return
