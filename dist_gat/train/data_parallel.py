"""`data_parallel`: the dense model under DDP, whose gradients are summed over ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dist_gat.exchange.worker import Worker
from dist_gat.nn.recommender import Recommender


def data_parallel(model: Recommender, worker: Worker) -> torch.nn.Module:
    """The dense model under DDP, where it trains weights and there are other ranks.

    The loss is already divided by the seeds of all ranks, so gradients are summed, not averaged.
    """
    trained = [parameter for parameter in model.dense.parameters() if parameter.requires_grad]
    if worker.world_size == 1 or not trained:
        return model.dense
    for parameter in trained:
        # a dimension of size one may have any stride; DDP warns of those that are not the usual
        parameter.register_hook(lambda gradient: gradient.flatten().view(gradient.shape))
    ddp = DistributedDataParallel(model.dense)
    ddp.register_comm_hook(None, sum_gradients)
    return ddp


def sum_gradients(state, bucket):  # type: ignore[no-untyped-def]
    """DDP communication hook: all-reduce without the division by the world size. DDP rejects string annotations."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])
