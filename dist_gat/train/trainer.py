"""The training loop: reads downward, fits a screen. The same function runs under Ray and the local launcher."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dist_gat.base.errors import TrainingError
from dist_gat.base.peak_memory import peak_memory
from dist_gat.base.storage import write_text
from dist_gat.checkpoints.checkpoint_store import open_archive
from dist_gat.checkpoints.checkpoint_writer import CheckpointWriter
from dist_gat.checkpoints.resume import resume
from dist_gat.checkpoints.snapshot import load_best, take_snapshot
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config
from dist_gat.evaluate.full_ranking import split_metrics
from dist_gat.evaluate.inference import ranking_rows
from dist_gat.exchange.stop_requests import Request
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import open_prepared
from dist_gat.graph.ranges import parts_of_ranks
from dist_gat.nn.attention import attention_entropy
from dist_gat.nn.recommender import Recommender, build_recommender, training_needs_degree
from dist_gat.optim.optimizer import build_optimizers, clip_gradients, gradient_squares
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.block import Block
from dist_gat.sampling.graph_store import open_store
from dist_gat.sampling.loader import StepRange, count_streams, load_batches, open_streams
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.ranking import loss_terms
from dist_gat.train.log_window import Window
from dist_gat.train.run_log import RunLog
from dist_gat.train.step_vote import Ballot, vote
from dist_gat.train.trace import Profile

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


class Trainer:
    """One rank's state of a run: graph, model, optimisers, cursor, checkpoints, log."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self.config, self.worker = config, worker
        prepared = open_prepared(config.data.prepared)
        sampling = config.sampling
        self.store = open_store(prepared, worker.sampling, sampling.access, sampling.cache_bytes)
        self.model = build_recommender(
            config.model,
            len(config.sampling.fanouts),
            prepared.feature_sizes,
            prepared.ranges.starts[parts_of_ranks(prepared.ranges.num_parts, worker.world_size)],
            worker.rows,
            config.seed,
            DTYPES[config.train.precision],
        )
        needs_degree = training_needs_degree(config.model, config.loss, config.negatives)
        self.samplers = [
            SeedBlockSampler(stream, sampling, config.negatives, config.train.batch_size, config.seed, needs_degree)
            for stream in open_streams(self.store, count_streams(sampling), config.launch.timeout_s)
        ]
        self.sampler = self.samplers[0]
        self.channels = [worker.rows, *(sampler.store.channel for sampler in self.samplers)]
        whole = config.train.num_epochs * self.sampler.steps_per_epoch
        scheduled = min(whole, config.train.max_steps or whole)
        self.optimizers = build_optimizers(self.model, config.train, scheduled)
        self.total_steps = min(
            scheduled, (config.train.stop_epoch or config.train.num_epochs) * self.sampler.steps_per_epoch
        )
        self.archive = open_archive(config.run_folder, config.checkpoint)
        self.writer = CheckpointWriter(self.archive, config.checkpoint, worker.saving)
        self.cursor = resume(self.archive, config.checkpoint, self.model, self.optimizers, self.store, worker.control)
        self.dense = data_parallel(self.model, worker)
        self.log = RunLog(config.run_folder, worker.rank, self.cursor.step)
        self.window = self.new_window()
        self.profile = Profile(config.run_folder / "profile", worker.rank, config.train.profile)
        self.saved_at = time.monotonic()

    def run(self) -> bool:
        """Epochs until the last one, the last step, until validation stops getting better, or until asked to stop.

        Returns whether it was asked to stop.
        """
        train, per_epoch = self.config.train, self.sampler.steps_per_epoch
        self.log.event(
            "start", step=self.cursor.step, total_steps=self.total_steps, steps_per_epoch=per_epoch,
            epochs=train.num_epochs,
        )  # fmt: skip
        if self.worker.rank == 0:
            write_text(self.config.run_folder / "config.yaml", dump_config(self.config))
        stopped = False
        with self.worker.requests.heard():
            while not stopped and self.cursor.step < self.total_steps and not self.is_exhausted():
                stopped = self.train_epoch()
            self.writer.wait()
        return stopped

    def is_exhausted(self) -> bool:
        patience = self.config.train.patience
        return bool(patience) and self.cursor.validations_since_best >= patience

    def train_epoch(self) -> bool:
        """Train from the cursor to the end of its epoch, validate and save. Returns whether the run is to stop."""
        epoch, first = divmod(self.cursor.step, self.sampler.steps_per_epoch)
        steps = StepRange(epoch, first, min(self.sampler.steps_per_epoch, first + self.total_steps - self.cursor.step))
        end = self.cursor.step + len(steps)
        stopped = False
        for batch in self.batches(steps):
            if stopped:
                continue
            if bottleneck := self.profile.step():
                self.log.event("profile", message=bottleneck, trace=str(self.profile.path))
            request = self.train_step(batch, at_end=self.cursor.step + 1 == end)
            stopped = request == Request.STOP
            if stopped:
                steps.end_at(self.cursor.step - epoch * self.sampler.steps_per_epoch, len(self.samplers))
            if self.cursor.step == end:
                self.end_epoch(epoch + 1)
            elif request or self.save_is_due():
                self.save()
        if stopped:
            self.log.event("stop", step=self.cursor.step)
        return stopped

    def end_epoch(self, epoch: int) -> None:
        """Validate where that is due, and save: what a checkpoint at the end of an epoch holds is complete."""
        if epoch % self.config.train.validate_every == 0 or self.cursor.step >= self.total_steps:
            self.validate(epoch)
        self.save()
        if self.is_exhausted():
            self.log.event("early_stop", epoch=epoch, best_epoch=self.cursor.best["epoch"])

    def batches(self, steps: StepRange) -> Iterator[Batch]:
        """The epoch's batches; what the loop waits for them is booked as a stall."""
        batches = load_batches(self.samplers, steps, self.worker.device)
        while True:
            with self.window.clock.phase("stall"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def train_step(self, batch: Batch, at_end: bool) -> Request:
        """One global step: look up, forward, loss, backward, vote, update. Collective.

        Returns what is asked of all ranks. Raises `TrainingError` on every rank, before the update, where any
        rank has a loss or gradient that is not finite.
        """
        config, rows, clock = self.config, self.worker.rows, self.window.clock
        learning_rate = self.optimizers.set_learning_rate(self.cursor.step)
        self.optimizers.zero_grad()
        exchanged = rows.traffic.seconds
        with clock.phase("gather"):
            embedding_SE = self.model.table(batch.nodes_S, batch.lookup)
        clock.move(rows.traffic.seconds - exchanged, "gather", "exchange")
        exchanged = rows.traffic.seconds
        with clock.phase("compute"):
            with autocast(config.train.precision, self.worker.device):
                encoded = self.dense(embedding_SE, batch.features, batch.blocks, batch.degree_N)
            terms = loss_terms(
                encoded.rows_NR.to(embedding_SE.dtype), embedding_SE, batch, self.model.decoder, config.loss,
                config.negatives, rows,
            )  # fmt: skip
            torch.stack(list(terms.values())).sum().backward()
            ballot = vote(rows, terms, *gradient_squares(self.model), self.request(), self.writer.failed)
            self.check(ballot)
            self.worker.requests.heed(ballot.request)
            if config.train.clip_norm is not None:
                clip_gradients(self.model, ballot.gradient_norm, config.train.clip_norm)
            self.optimizers.step()
        clock.move(rows.traffic.seconds - exchanged, "compute", "exchange")
        self.cursor.step += 1
        self.window.add(batch, terms)
        # a checkpoint's log is complete too, so a point ends wherever a checkpoint may
        is_due = self.cursor.step % config.train.log_every == 0 or at_end or ballot.request or self.save_is_due()
        if is_due:
            self.log_point(learning_rate, ballot.gradient_norm, encoded.alphas, batch.blocks)
        return ballot.request

    def request(self) -> Request:
        """What this rank is asked; rank 0's clock asks for the checkpoints that go by time."""
        every = self.config.checkpoint.every_minutes
        is_late = self.worker.rank == 0 and every is not None and time.monotonic() - self.saved_at >= 60 * every
        return max(self.worker.requests.poll(), Request.SAVE if is_late else Request.NOTHING)

    def save_is_due(self) -> bool:
        every = self.config.checkpoint.every_steps
        return every is not None and self.cursor.step % every == 0

    def check(self, ballot: Ballot) -> None:
        """Stop all ranks before the update where a checkpoint could not be written or a number is not finite."""
        if ballot.save_failed:
            self.writer.wait()
        if ballot.not_finite:
            # what was copied before this step is good, so it is brought to its end
            self.writer.wait()
            kept = self.archive.steps()
            raise TrainingError(
                f"step {self.cursor.step + 1}: not finite: {ballot.not_finite}; the step was not applied, and "
                f"{f'the checkpoint of step {kept[0]} is good' if kept else 'there is no checkpoint yet'}. "
                "Look at the input features, and try a smaller train.learning_rate or train.clip_norm=1 in a new run"
            )

    def log_point(self, learning_rate: float, norm: float, alphas: list[Tensor], blocks: list[Block]) -> None:
        """Write the steps since the last point, and the attention of the last one. Collective."""
        losses, point = self.window.summarise()
        self.cursor.losses += losses
        point |= {"train/learning_rate": learning_rate, "train/gradient_norm": norm}
        for layer, (alpha, block) in enumerate(zip(alphas, blocks, strict=True), start=1):
            point[f"attention/entropy_layer_{layer}"] = float(attention_entropy(alpha, block))
        if self.model.dense.popularity is not None:
            point["model/popularity_slope"] = float(self.model.dense.popularity.slope.detach())
        self.log.scalars(self.cursor.step, point)
        self.log.event("step", step=self.cursor.step, loss=point["train/loss"], seeds_per_s=point["speed/seeds_per_s"])
        self.window = self.new_window()

    def new_window(self) -> Window:
        return Window(self.worker, self.channels, self.store.cache)

    def validate(self, epoch: int) -> None:
        """Rank the validation split. Collective."""
        if not self.store.prepared.num_edges("valid"):
            return
        started = time.perf_counter()
        rows_OR = ranking_rows(self.model, self.store, self.config.evaluate.edge_chunk)
        metrics = split_metrics(rows_OR, self.model, self.store, self.worker, "valid", self.config.evaluate)
        name = self.config.train.metric
        better = self.cursor.validated({"epoch": epoch, "step": self.cursor.step, **metrics}, name)
        self.log.scalars(self.cursor.step, {f"valid/{name}": value for name, value in metrics.items()})
        took = time.perf_counter() - started
        self.window.clock.pause(took)
        self.log.event(
            "valid", epoch=epoch, step=self.cursor.step, best=better, metric=name, value=metrics[name], took=took
        )  # fmt: skip

    def save(self) -> None:
        """Copy the state; it is committed in the background. Collective."""
        with self.window.clock.phase("checkpoint"):
            self.writer.wait()
            self.log.flush()
            self.writer.start(take_snapshot(self.config, self.model, self.optimizers, self.store, self.cursor))
        self.saved_at = time.monotonic()
        self.log.event("save", step=self.cursor.step)

    def load_best(self) -> None:
        """Put the weights of the best validation back, where they are not the present ones. Collective."""
        best = self.cursor.best
        if best and best["step"] != self.cursor.step:
            load_best(self.archive, best["step"], self.model, self.store)

    def result(self, stopped: bool) -> dict[str, Any]:
        """The same on every rank; memory is the sum of their peaks. Collective."""
        cursor = self.cursor
        epochs = math.ceil(cursor.step / self.sampler.steps_per_epoch)
        return {
            "stopped": stopped,
            "epochs": epochs,
            "steps": cursor.step,
            "best_epoch": cursor.best.get("epoch", epochs),
            "blend": {},
            "valid": {name: value for name, value in cursor.best.items() if name not in ("epoch", "step")},
            "history": cursor.history,
            "losses": cursor.losses,
            "peak_memory_bytes": int(self.worker.control.sum(torch.tensor([peak_memory()]))),
        }


def data_parallel(model: Recommender, worker: Worker) -> torch.nn.Module:
    """The dense model under DDP, where it has weights and there are other ranks.

    The loss is already divided by the seeds of all ranks, so gradients are summed, not averaged.
    """
    if worker.world_size == 1 or not list(model.dense.parameters()):
        return model.dense
    for parameter in model.dense.parameters():
        # a dimension of size one may have any stride; DDP warns of those that are not the usual
        parameter.register_hook(lambda gradient: gradient.flatten().view(gradient.shape))
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
