"""`Worker`: what a rank knows of its place, whoever started it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from dist_gat.errors import ClusterError
from dist_gat.exchange.channel import Channel, open_channel, who_is_missing


@dataclass(frozen=True)
class Worker:
    """rows: embedding rows and representations, on `device`. sampling: integers and features, on the CPU, in the
    background. control: metrics, barriers and other small CPU sums."""

    rank: int
    world_size: int
    device: torch.device
    num_threads: int
    rows: Channel
    sampling: Channel
    control: Channel


def join_workers(device: torch.device, num_threads: int, timeout_s: float) -> Worker:
    """Set this process's threads and open the channels of the default process group. Collective.

    Without a process group this is the only rank.
    """
    torch.set_num_threads(num_threads)
    cpu = torch.device("cpu")
    if not dist.is_initialized():
        return Worker(
            0, 1, device, num_threads, Channel("rows", device=device), Channel("sampling"), Channel("control")
        )
    rank, world_size, store = dist.get_rank(), dist.get_world_size(), dist.distributed_c10d._get_default_store()
    try:
        rows = open_channel("rows", device, timeout_s, store)
        sampling = open_channel("sampling", cpu, timeout_s, store)
        control = open_channel("control", cpu, timeout_s, store)
    except RuntimeError as err:
        missing = who_is_missing(rank, world_size, store)
        raise ClusterError(
            f"rank {rank} of {world_size}: the workers did not meet: {missing}. Look at its log and host first; "
            f"launch.timeout_s is how long the others wait. ({str(err).splitlines()[0]})"
        ) from err
    return Worker(rank, world_size, device, num_threads, rows, sampling, control)
