"""`Worker`: what a rank knows of its place, whoever started it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from dist_gat.exchange.channel import Channel, open_channel


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
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    roll_call = dist.new_group(backend="gloo") if world_size > 1 else None
    rows = open_channel("rows", device, timeout_s, roll_call)
    sampling = open_channel("sampling", cpu, timeout_s, roll_call)
    control = open_channel("control", cpu, timeout_s, roll_call)
    return Worker(rank, world_size, device, num_threads, rows, sampling, control)
