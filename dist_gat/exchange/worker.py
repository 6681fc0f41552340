"""`Worker`: a rank's number, device and channels, whichever launcher started it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from dist_gat.base.errors import ClusterError, first_line
from dist_gat.exchange.channel import Channel, open_channel, share_memory, who_is_missing
from dist_gat.exchange.long_work import Step, Tell, follow, tell_nothing
from dist_gat.exchange.stop_requests import Requests


@dataclass(frozen=True)
class Worker:
    """rows: embedding rows and representations, on `device`. sampling: integers and features, on the CPU, in the
    background. control: metrics, barriers and other small CPU sums. saving: checkpoints, in the background. tell: where
    long work tells how far it is."""

    rank: int
    world_size: int
    device: torch.device
    rows: Channel
    sampling: Channel
    control: Channel
    saving: Channel
    requests: Requests = field(default_factory=Requests)
    tell: Tell = tell_nothing

    def steps(self, what: str, steps: Iterable[Step], total: int) -> Iterable[Step]:
        """The steps of a long work that all ranks do together; `Stopped` where one is asked to stop. Collective."""
        return follow(what, steps, total, self.control, self.requests, self.tell)


def lone_worker(
    device: torch.device | None = None, requests: Requests | None = None, tell: Tell = tell_nothing
) -> Worker:
    """The only rank, with nobody to exchange anything with; on the CPU, unless a device is given."""
    device = device or torch.device("cpu")
    rows, sampling, control, saving = (
        Channel("rows", device=device), Channel("sampling"), Channel("control"), Channel("saving")
    )  # fmt: skip
    return Worker(0, 1, device, rows, sampling, control, saving, requests or Requests(), tell)


def join_workers(
    device: torch.device,
    num_threads: int,
    timeout_s: float,
    requests: Requests | None = None,
    shares_memory: bool = True,
) -> Worker:
    """Set this process's threads and open the channels of the default process group. Collective.

    Without a process group this is the only rank. shares_memory: exchange rows through memory where all ranks are on
    one host; without it through sockets, as between hosts.
    """
    torch.set_num_threads(num_threads)
    if not torch.sparse.check_sparse_tensor_invariants.is_enabled():
        # set explicitly, because some releases of torch warn where it is left at its default
        torch.sparse.check_sparse_tensor_invariants.disable()
    cpu, requests = torch.device("cpu"), requests or Requests()
    if not dist.is_initialized():
        return lone_worker(device, requests)
    rank, world_size, store = dist.get_rank(), dist.get_world_size(), dist.distributed_c10d._get_default_store()
    try:
        rows = open_channel("rows", device, timeout_s, store)
        sampling = open_channel("sampling", cpu, timeout_s, store)
        control = open_channel("control", cpu, timeout_s, store)
        saving = open_channel("saving", cpu, timeout_s, store)
        if shares_memory:
            share_memory(rows)
    except RuntimeError as err:
        missing = who_is_missing(rank, world_size, store)
        raise ClusterError(
            f"rank {rank} of {world_size}: the workers did not meet: {missing}. Look at its log and host first; "
            f"launch.timeout_s is how long the others wait. ({first_line(err)})"
        ) from err
    return Worker(rank, world_size, device, rows, sampling, control, saving, requests)
