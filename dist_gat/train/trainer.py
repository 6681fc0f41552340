"""The training loop: reads downward, fits a screen. The same function runs under Ray and the local launcher."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dist_gat.config import Config, dump_config
from dist_gat.evaluate.evaluator import ranking_rows, split_metrics
from dist_gat.evaluate.saved_model import save_model
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import open_prepared
from dist_gat.graph.ranges import parts_of_ranks
from dist_gat.nn.attention import attention_entropy
from dist_gat.nn.recommender import Recommender, build_recommender, loss_needs_degree, messages_need_degree
from dist_gat.nn.weights import load_weights
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.block import Block
from dist_gat.sampling.loader import StepRange, open_loader
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.sampling.store import open_store
from dist_gat.storage import write_text
from dist_gat.train.checkpoint import save_checkpoint
from dist_gat.train.metrics import RunLog
from dist_gat.train.objective import loss_terms
from dist_gat.train.optimizer import build_optimizers, clip_gradients
from dist_gat.train.window import Window

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


def train_worker(config: Config, worker: Worker) -> dict[str, Any]:
    """Train one recommender; every rank calls this. Returns the result, the same on every rank."""
    trainer = Trainer(config, worker)
    try:
        return trainer.run()
    finally:
        trainer.log.close()


class Trainer:
    """One rank's state of a run: graph, model, optimisers, cursor, log."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self.config, self.worker = config, worker
        self.log = RunLog(config.run_folder, worker.rank)
        prepared = open_prepared(config.data.prepared)
        self.store = open_store(prepared, worker.sampling, config.sampling.access, worker.num_threads)
        self.model = build_recommender(
            config.model,
            len(config.sampling.fanouts),
            prepared.feature_sizes,
            prepared.ranges.starts[parts_of_ranks(prepared.ranges.num_parts, worker.world_size)],
            worker.rows,
            config.seed,
            DTYPES[config.train.precision],
        )
        self.sampler = SeedBlockSampler(
            self.store,
            config.sampling,
            config.negatives,
            config.train.batch_size,
            config.seed,
            messages_need_degree(config.model) or loss_needs_degree(config.loss, config.negatives),
        )
        total_steps = config.train.num_epochs * self.sampler.steps_per_epoch
        self.total_steps = min(total_steps, config.train.max_steps or total_steps)
        self.optimizers = build_optimizers(self.model, config.train, self.total_steps)
        self.dense = data_parallel(self.model, worker)
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.window = Window(worker)

    def run(self) -> dict[str, Any]:
        """Epochs until the last one, the last step, or until validation stops getting better."""
        train = self.config.train
        per_epoch = self.sampler.steps_per_epoch
        self.log.event("start", total_steps=self.total_steps, steps_per_epoch=per_epoch, epochs=train.num_epochs)
        epoch = 0
        while self.step < self.total_steps:
            steps = StepRange(epoch, 0, min(per_epoch, self.total_steps - self.step))
            for batch in self.batches(steps):
                self.train_step(batch)
            epoch += 1
            last = self.step >= self.total_steps
            if epoch % train.validate_every == 0 or last:
                self.validate(epoch)
                if train.patience and self.validations_since_best() >= train.patience:
                    self.log.event("early_stop", epoch=epoch, best_epoch=self.best["epoch"])
                    break
        return self.finish(epoch)

    def batches(self, steps: StepRange) -> Iterator[Batch]:
        """The epoch's batches; what the loop waits for them is booked as a stall."""
        batches = iter(open_loader(self.sampler, steps, self.worker.device))
        while True:
            with self.window.clock.phase("stall"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def train_step(self, batch: Batch) -> None:
        """One global step: look up, forward, loss, backward, update. Collective."""
        config, rows, clock = self.config, self.worker.rows, self.window.clock
        learning_rate = self.optimizers.set_learning_rate(self.step)
        self.optimizers.zero_grad()
        exchanged = rows.traffic.seconds
        with clock.phase("gather"):
            embedding_SE = self.model.table(batch.nodes_S)
        clock.move(rows.traffic.seconds - exchanged, "gather", "exchange")
        exchanged = rows.traffic.seconds
        with clock.phase("compute"):
            with autocast(config.train.precision, self.worker.device):
                encoded = self.dense(embedding_SE, batch.features, batch.blocks)
            terms = loss_terms(
                encoded.rows_NR.to(embedding_SE.dtype), embedding_SE, batch, self.model.decoder, config.loss,
                config.negatives, rows,
            )  # fmt: skip
            torch.stack(list(terms.values())).sum().backward()
            norm = clip_gradients(self.model, rows, config.train.clip_norm)
            self.optimizers.step()
        clock.move(rows.traffic.seconds - exchanged, "compute", "exchange")
        self.step += 1
        self.window.add(batch, terms)
        if self.step % config.train.log_every == 0 or self.step == self.total_steps:
            self.log_point(learning_rate, norm, encoded.alphas, batch.blocks)

    def log_point(self, learning_rate: float, norm: float, alphas: list[Tensor], blocks: list[Block]) -> None:
        """Write the steps since the last point, and the attention of the last one. Collective."""
        losses, point = self.window.summarise()
        self.losses += losses
        point |= {"train/learning_rate": learning_rate, "train/gradient_norm": norm}
        for layer, (alpha, block) in enumerate(zip(alphas, blocks, strict=True), start=1):
            point[f"attention/entropy_layer_{layer}"] = float(attention_entropy(alpha, block))
        self.log.scalars(self.step, point)
        self.log.event("step", step=self.step, loss=point["train/loss"], seeds_per_s=point["speed/seeds_per_s"])
        self.window = Window(self.worker)

    def validate(self, epoch: int) -> None:
        """Rank the validation split; keep a checkpoint where the metric is the best so far. Collective."""
        if not self.store.prepared.num_edges("valid"):
            return
        started = time.perf_counter()
        rows_OR = ranking_rows(self.model, self.store, self.config)
        metrics = split_metrics(rows_OR, self.model, self.store, self.worker, "valid", self.config)
        self.history.append({"epoch": epoch, "step": self.step, **metrics})
        self.log.scalars(self.step, {f"valid/{name}": value for name, value in metrics.items()})
        name = self.config.train.metric
        better = not self.best or metrics[name] > self.best[name]
        if better:
            self.best = self.history[-1]
            self.save("best", epoch)
        took = time.perf_counter() - started
        self.window.clock.pause(took)
        self.log.event(
            "valid", epoch=epoch, step=self.step, best=better, metric=name, value=metrics[name], took=took
        )  # fmt: skip

    def validations_since_best(self) -> int:
        return len(self.history) - 1 - self.history.index(self.best) if self.history else 0

    def finish(self, epoch: int) -> dict[str, Any]:
        """Save the last checkpoint and, from the best one, the model that `recommend` reads. Collective."""
        self.save("last", epoch)
        if self.best:
            load_weights(self.checkpoint_folder("best"), self.model, self.store.ranges, self.store.own_parts)
        self.log.event("export", epoch=self.best.get("epoch", epoch))
        rows_OR = ranking_rows(self.model, self.store, self.config)
        save_model(self.config, self.model, rows_OR, self.store, self.worker.control)
        result = {
            "epochs": epoch,
            "steps": self.step,
            "best_epoch": self.best.get("epoch", epoch),
            "valid": {name: value for name, value in self.best.items() if name not in ("epoch", "step")},
            "history": self.history,
            "losses": self.losses,
        }
        self.log.hyper_parameters(self.config.model_dump(mode="json"), result["valid"])
        self.log.event("done", **{key: result[key] for key in ("epochs", "steps", "best_epoch", "valid")})
        return result

    def checkpoint_folder(self, name: str) -> Path:
        return self.config.run_folder / "checkpoints" / name

    def save(self, name: str, epoch: int) -> None:
        cursor = {
            "epoch": epoch,
            "step": self.step,
            "best": self.best,
            "history": self.history,
            "seed": self.config.seed,
        }
        target = self.checkpoint_folder(name)
        save_checkpoint(target, self.model, self.optimizers, self.store, self.worker.control, cursor)
        if self.worker.rank == 0:
            write_text(self.config.run_folder / "config.yaml", dump_config(self.config))


def data_parallel(model: Recommender, worker: Worker) -> torch.nn.Module:
    """The dense model under DDP, where it has weights and there are other ranks.

    The loss is already divided by the seeds of all ranks, so gradients are summed, not averaged.
    """
    if worker.world_size == 1 or not list(model.dense.parameters()):
        return model.dense
    ddp = DistributedDataParallel(model.dense)
    ddp.register_comm_hook(None, sum_gradients)
    return ddp


def sum_gradients(state, bucket):  # type: ignore[no-untyped-def]
    """DDP communication hook: all-reduce without the division by the world size. DDP wants no string annotations."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def autocast(precision: str, device: torch.device):  # type: ignore[no-untyped-def]
    """Mixed precision of the forward pass for bfloat16, nothing otherwise."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
