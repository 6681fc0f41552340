"""Training jobs that go wrong on purpose, at a given step on a given rank. Workers import them by name."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from faults.runs import hashes_of
from processes import becomes_true

from dist_gat.base.errors import DistGatError
from dist_gat.checkpoints import snapshot as checkpoint
from dist_gat.checkpoints.snapshot import take_snapshot
from dist_gat.config.sections import Config
from dist_gat.exchange.stop_requests import Request
from dist_gat.exchange.worker import Worker
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

BAD_STEP, BAD_RANK = 16, 1


class Disturbed(Trainer):
    """Calls `disturb` once on the bad rank, after the backward pass of the bad step and before its update."""

    def request(self) -> Request:
        if self.worker.rank == BAD_RANK and self.progress.step + 1 == BAD_STEP:
            self.disturb()
        return super().request()

    def disturb(self) -> None:
        raise NotImplementedError


class Killed(Disturbed):
    def disturb(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Stopped(Disturbed):
    def disturb(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


def killed_in_step(config: Config, worker: Worker) -> dict[str, Any]:
    return Killed(config, worker).run()


def killed_writer_in_step(config: Config, worker: Worker) -> dict[str, Any]:
    """Rank 0, which writes TensorBoard, is the one that is killed."""

    class KilledFirst(Killed):
        def request(self) -> Request:
            if self.worker.rank == 0 and self.progress.step + 1 == BAD_STEP:
                self.disturb()
            return Trainer.request(self)

    return KilledFirst(config, worker).run()


def stopped_in_step(config: Config, worker: Worker) -> dict[str, Any]:
    return Stopped(config, worker).run()


class NotANumber(Trainer):
    """What rank 1 looks up, or the gradient of it, is NaN in the bad step."""

    def __init__(self, config: Config, worker: Worker, in_gradient: bool) -> None:
        super().__init__(config, worker)
        self.model.table.register_forward_hook(self.spoil_gradient if in_gradient else self.spoil_value)

    def is_bad(self) -> bool:
        return self.worker.rank == BAD_RANK and self.progress.step + 1 == BAD_STEP

    def spoil_value(self, module: Any, args: Any, rows: torch.Tensor) -> torch.Tensor:
        return rows * float("nan") if self.is_bad() else rows

    def spoil_gradient(self, module: Any, args: Any, rows: torch.Tensor) -> torch.Tensor:
        if self.is_bad():
            rows.register_hook(lambda gradient: gradient * float("nan"))
        return rows


def nan_in_loss(config: Config, worker: Worker) -> dict[str, Any]:
    return tell_state(NotANumber(config, worker, in_gradient=False))


def nan_in_gradient(config: Config, worker: Worker) -> dict[str, Any]:
    return tell_state(NotANumber(config, worker, in_gradient=True))


def tell_state(trainer: Trainer) -> dict[str, Any]:
    """Run; at an error each rank writes it, and the hashes of its state as it is then."""
    try:
        return trainer.run()
    except DistGatError as err:
        told = {"error": str(err), "kind": type(err).__name__, "state": state_hashes(trainer)}
        paths = [trainer.config.run_folder / f"told-{rank}.json" for rank in range(trainer.worker.world_size)]
        new = paths[trainer.worker.rank].with_suffix(".new")
        new.write_text(json.dumps(told))
        new.replace(paths[trainer.worker.rank])
        # the launcher ends the others when the first of them has ended
        becomes_true(lambda: all(path.exists() for path in paths), 20)
        raise


def state_hashes(trainer: Trainer) -> dict[str, str]:
    """Of this rank's share of what a checkpoint would hold now."""
    snapshot = take_snapshot(trainer.config, trainer.model, trainer.optimizers, trainer.store, trainer.progress)
    files = {f"parts/{part:04d}.safetensors": tensors for part, tensors in snapshot.parts.items()}
    return hashes_of({**files, **snapshot.common})


def failing_write(config: Config, worker: Worker) -> dict[str, Any]:
    """From the bad step on, rank 1 can't write tensors."""
    trainer = Trainer(config, worker)
    save_tensors = checkpoint.save_tensors

    def fail(path: Any, tensors: Any) -> None:
        if worker.rank == BAD_RANK and trainer.progress.step >= BAD_STEP:
            raise OSError(errno.EIO, "Input/output error", str(path))
        save_tensors(path, tensors)

    checkpoint.save_tensors = fail
    return tell_state(trainer)


def load_only(config: Config, worker: Worker) -> dict[str, Any]:
    """Resume, and return the hashes of what was loaded, of all ranks, without a step."""
    trainer = Trainer(config, worker)
    path = config.run_folder / f"loaded-{worker.rank}.json"
    path.write_text(json.dumps(state_hashes(trainer)))
    worker.control.barrier()
    trainer.log.close()
    found: dict[str, str] = {}
    for rank in range(worker.world_size):
        found |= json.loads((config.run_folder / f"loaded-{rank}.json").read_text())
    worker.control.barrier()
    path.unlink()
    return {"step": trainer.progress.step, "state": found}


class SeedKeeper(Trainer):
    """Notes the seed edges that each rank trains on."""

    def batches(self, steps: StepRange) -> Iterator[Batch]:
        for batch in super().batches(steps):
            edges = np.stack([batch.nodes_S[batch.seeds.user_at_B].numpy(), batch.seeds.item_B.numpy()], axis=1)
            name = f"seeds-{batch.epoch}-{batch.step}-{self.worker.rank}.npy"
            np.save(self.config.run_folder / name, edges)
            yield batch


def keep_seeds(config: Config, worker: Worker) -> dict[str, Any]:
    return SeedKeeper(config, worker).run()
