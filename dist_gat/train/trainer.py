"""The training loop, which is the same under Ray and the local launcher."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dist_gat.base.errors import DataError, TrainingError
from dist_gat.base.metric_counts import sample_in_words
from dist_gat.base.peak_memory import peak_memory
from dist_gat.base.run_folder import CONFIG_FILE, write_own_text
from dist_gat.base.versions import versions
from dist_gat.checkpoints.checkpoint_store import open_checkpoints
from dist_gat.checkpoints.checkpoint_writer import CheckpointWriter
from dist_gat.checkpoints.resume import resume
from dist_gat.checkpoints.snapshot import load_best, take_snapshot
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import infer_representations
from dist_gat.exchange.long_work import Stopped
from dist_gat.exchange.stop_requests import Request
from dist_gat.exchange.worker import Worker
from dist_gat.graph.own_parts import open_own_parts
from dist_gat.nn.attention import attention_entropy, attention_shares
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.frozen import trained_share
from dist_gat.nn.learned_terms import learned_curves, learned_numbers
from dist_gat.nn.recommender import build_recommender, rows_at, untimed_type
from dist_gat.optim.gradient_rules import build_gradient_rules
from dist_gat.optim.optimizer import build_optimizers, gradient_squares
from dist_gat.sampling.batch import Batch
from dist_gat.sampling.block import Block
from dist_gat.sampling.graph_store import open_store, read_ahead
from dist_gat.sampling.loader import StepRange, count_streams, load_batches, open_streams
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.build_task import build_task
from dist_gat.train.begin import begin_model
from dist_gat.train.data_parallel import data_parallel
from dist_gat.train.log_window import LogWindow
from dist_gat.train.private_run import begin_private
from dist_gat.train.private_start import start_private
from dist_gat.train.remote_logs import open_remote_logs
from dist_gat.train.run_log import RunLog
from dist_gat.train.step_vote import StepVote, vote
from dist_gat.train.text_tuning import TextTuning
from dist_gat.train.trace import Trace

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


class Trainer:
    """One rank's state of a run: graph, model, optimisers, progress, checkpoints, log."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self.config, self.worker = config, worker
        prepared = open_own_parts(config, worker.control)
        sampling = config.sampling
        # kept vectors of texts are with their owners alone
        access = sampling.access if config.model.text is None else "exchange"
        self.store = open_store(prepared, worker.sampling, access, sampling.cache_bytes)
        read_ahead(self.store)
        self.checkpoints = open_checkpoints(config.run_folder, config.checkpoint_url)
        self.private = begin_private(config, worker, self.checkpoints)
        # everything that is drawn at random is drawn from the secret of a private run
        seeded = config if self.private is None else self.private.with_secret_seed(config)
        self.task = build_task(seeded, prepared)
        self.kinds = prepared_kinds(prepared, sampling)
        self.model = build_recommender(
            config.model,
            len(config.sampling.fanouts),
            prepared.layouts,
            self.store.ownership,
            worker.rows,
            config.seed if self.private is None else self.private.weights_seed,
            DTYPES[config.train.precision],
            self.task.build_head,
            self.kinds,
            untimed_type(sampling, self.task.relation),
        )
        self.loaded = begin_model(config, self.model, self.store, worker, self.checkpoints)
        if self.private is not None and self.private.is_new and config.privacy and config.privacy.start:
            start_private(self.model, config.privacy.start, self.private, self.store, self.task.relation, worker)
        text = self.model.dense.text
        self.samplers = [
            SeedBlockSampler(
                stream,
                sampling,
                self.task.source(stream),
                seeded.seed,
                self.task.needs_degree,
                self.model.encoder.edge_columns,
                config.model.inputs,
                self.task.hidden_columns,
                None if text is None else text.nodes,
            )
            for stream in open_streams(self.store, count_streams(sampling), config.launch.timeout_s)
        ]
        self.steps_per_epoch = self.samplers[0].source.steps_per_epoch
        self.channels = [worker.rows, *(sampler.store.channel for sampler in self.samplers)]
        whole = config.train.num_epochs * self.steps_per_epoch
        most = config.train.max_steps
        scheduled = whole if most is None else min(whole, most)
        self.optimizers = build_optimizers(self.model, config.train, scheduled)
        self.gradient_rules = build_gradient_rules(config.train)
        if self.private is not None:
            self.gradient_rules.append(self.private.noise(self.store, config.train.batch_size))
        self.total_steps = min(scheduled, (config.train.stop_epoch or config.train.num_epochs) * self.steps_per_epoch)
        self.remote_logs = open_remote_logs(config, worker)
        self.writer = CheckpointWriter(self.checkpoints, config.checkpoint, worker.saving, self.remote_logs.send)
        self.progress = resume(
            self.checkpoints, config.checkpoint, self.model, self.optimizers, self.store, worker.control
        )
        if self.loaded is not None:
            self.progress.base = self.loaded.fingerprint
        self.dense = data_parallel(self.model, worker)
        self.log = RunLog(config.run_folder, worker.rank, self.progress.step)
        self.worker = replace(worker, tell=self.log.work)
        self.texts: TextTuning | None = None
        if text is not None:
            stores, every = [sampler.store for sampler in self.samplers], self.steps_per_epoch
            self.texts = TextTuning(text, stores, sampling.cache_bytes, every, self.worker, self.log)
        self.window = self.new_window()
        self.trace = Trace(config.run_folder / "profile", worker.rank, config.train.profile)
        self.saved_at = time.monotonic()

    def run(self) -> bool:
        """Train until the last epoch or step, until validation stops improving, or until asked to stop.

        Returns whether it was asked to stop. Collective.
        """
        train, per_epoch = self.config.train, self.steps_per_epoch
        self.log.event(
            "start", step=self.progress.step, total_steps=self.total_steps, steps_per_epoch=per_epoch,
            epochs=train.num_epochs, workers=self.worker.world_size, versions=versions(),
        )  # fmt: skip
        told = [] if self.loaded is None else self.loaded.lines()
        share = trained_share(self.model, self.worker.control)
        if not share.is_whole:
            told.append(share.in_words())
        if self.texts is not None:
            told.append(self.texts.line)
        for line in told:
            self.log.event("told", message=line)
        if self.worker.rank == 0:
            write_own_text(self.config.run_folder / CONFIG_FILE, dump_config(self.config))
        if self.private is not None and self.private.is_new and (self.private.plan.released or not self.total_steps):
            # so that the same command finds what the run begins with, and asks nobody again
            self.save()
        try:
            if self.texts is not None:
                self.texts.restore()
            # an earlier attempt may have been stopped in a validation
            stopped = self.validation_is_due() and self.end_epoch()
            while not stopped and self.progress.step < self.total_steps and not self.is_exhausted():
                stopped = self.train_epoch()
        except Stopped:
            # while texts were encoded, at the start of an epoch, which the last checkpoint has whole
            stopped = True
        self.writer.wait()
        if stopped:
            self.log.event("stop", step=self.progress.step)
        return stopped

    def is_exhausted(self) -> bool:
        """Whether what `train.until` names has become no better, or by too little, for as long as `patience` says."""
        train, task = self.config.train, self.task
        if train.until == "loss":
            since = self.progress.epochs_without_gain(self.steps_per_epoch, train.min_gain)
        else:
            since = self.progress.validations_without_gain(task.metric, task.higher_is_better, train.min_gain)
        return bool(train.patience) and since >= train.patience

    def train_epoch(self) -> bool:
        """Train from the progress to the end of its epoch, validate and save. Returns whether the run is to stop."""
        epoch, first = divmod(self.progress.step, self.steps_per_epoch)
        steps = StepRange(epoch, first, min(self.steps_per_epoch, first + self.total_steps - self.progress.step))
        end = self.progress.step + len(steps)
        stopped = False
        if self.texts is not None and self.texts.begin_epoch(self.progress.step):
            self.window = self.new_window()
        for batch in self.batches(steps):
            if stopped:
                continue
            if bottleneck := self.trace.step():
                self.log.event("profile", message=bottleneck, trace=str(self.trace.path))
            request = self.train_step(batch, at_end=self.progress.step + 1 == end)
            stopped = request == Request.STOP
            if stopped:
                steps.end_at(self.progress.step - epoch * self.steps_per_epoch, len(self.samplers))
            if self.progress.step == end and not stopped:
                stopped = self.end_epoch()
            elif request or self.save_is_due():
                self.save()
        return stopped

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 1 on."""
        return math.ceil(self.progress.step / self.steps_per_epoch)

    def validation_is_due(self) -> bool:
        """Whether a validation belongs to the present step and is not made yet."""
        step, history = self.progress.step, self.progress.history
        is_last = step >= self.total_steps
        at_end = is_last or step % self.steps_per_epoch == 0 and self.epoch % self.config.train.validate_every == 0
        is_made = bool(history) and history[-1]["step"] == step
        # which pairs there are to measure is of users: nothing of a private run goes by it
        at_end = at_end and self.private is None
        return at_end and step > 0 and not is_made and self.store.prepared.num_pairs(self.task.relation, "valid") > 0

    def end_epoch(self) -> bool:
        """Validate where that is due, then save, so that a checkpoint at the end of an epoch has the validation.

        Returns whether it was asked to stop: then the checkpoint is without it, and the next attempt validates first.
        """
        stopped = False
        if self.validation_is_due():
            try:
                self.validate()
            except Stopped:
                stopped = True
        self.save()
        if not stopped and self.is_exhausted():
            self.log.event("early_stop", epoch=self.epoch, best_epoch=self.progress.best.get("epoch", self.epoch))
        return stopped

    def batches(self, steps: StepRange) -> Iterator[Batch]:
        """The epoch's batches; the time that the loop waits for them counts as stall."""
        batches = load_batches(self.samplers, steps, self.worker.device)
        while True:
            with self.window.clock.phase("stall"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def train_step(self, batch: Batch, at_end: bool) -> Request:
        """One global step: row lookup, forward, loss, backward, step vote, update. Collective.

        Returns the request that all ranks obey. Raises `TrainingError` on every rank, before the update, where any rank
        has a loss or gradient that is not finite.
        """
        config, rows, clock = self.config, self.worker.rows, self.window.clock
        learning_rate = self.optimizers.set_learning_rate(self.progress.step)
        self.optimizers.zero_grad()
        exchanged = rows.traffic.seconds
        with clock.phase("gather"):
            embedding_UE = self.model.table(batch.nodes_U, batch.lookup)
        clock.move(rows.traffic.seconds - exchanged, "gather", "exchange")
        exchanged = rows.traffic.seconds
        with clock.phase("compute"):
            with autocast(config.train.precision, self.worker.device):
                encoded = self.dense(
                    embedding_UE, batch.features, batch.blocks, batch.degree_N, batch.place_S, batch.has_id_U,
                    batch.text_T,
                )  # fmt: skip
            rows_NR = encoded.rows_NR.to(embedding_UE.dtype)
            terms = self.task.loss(self.model, rows_NR, rows_at(embedding_UE, batch.place_S), batch, rows)
            torch.stack(list(terms.values())).sum().backward()
            decision = vote(rows, terms, *gradient_squares(self.model), self.request(), self.writer.failed)
            self.check(decision)
            self.worker.requests.heed(decision.request)
            for rule in self.gradient_rules:
                rule.apply(self.model, decision.gradient_norm, self.progress.step)
            self.optimizers.step()
        clock.move(rows.traffic.seconds - exchanged, "compute", "exchange")
        self.progress.step += 1
        self.window.add(batch, terms)
        # a point ends wherever a checkpoint may be taken, so that the log of a checkpoint is complete
        is_due = self.progress.step % config.train.log_every == 0 or at_end or decision.request or self.save_is_due()
        if is_due:
            self.log_point(learning_rate, decision.gradient_norm, encoded.alphas, batch.blocks)
        return decision.request

    def request(self) -> Request:
        """The request to this rank; rank 0's clock requests the checkpoints that are due by time."""
        every = self.config.checkpoint.every_minutes
        is_late = self.worker.rank == 0 and every is not None and time.monotonic() - self.saved_at >= 60 * every
        return max(self.worker.requests.poll(), Request.SAVE if is_late else Request.NOTHING)

    def save_is_due(self) -> bool:
        every = self.config.checkpoint.every_steps
        return every is not None and self.progress.step % every == 0

    def check(self, decision: StepVote) -> None:
        """Stop all ranks before the update where a checkpoint could not be written or a number is not finite."""
        if decision.save_failed:
            self.writer.wait()
        if decision.not_finite:
            # the checkpoint under way was copied before this step and is good, so let it finish
            self.writer.wait()
            kept = self.checkpoints.steps()
            raise TrainingError(
                f"step {self.progress.step + 1}: not finite: {decision.not_finite}; the step was not applied, and "
                f"{f'the checkpoint of step {kept[0]} is good' if kept else 'there is no checkpoint yet'}. "
                "Look at the input features, and try a smaller train.learning_rate or train.clip_norm=1 in a new run"
            )

    def log_point(self, learning_rate: float, norm: float, alphas: list[Tensor], blocks: list[Block]) -> None:
        """Write the steps since the last point, and the attention of the last step. Collective."""
        losses, point = self.window.summarise()
        self.progress.losses += losses
        point |= {"train/learning_rate": learning_rate, "train/gradient_norm": norm}
        for layer, (alpha, block) in enumerate(zip(alphas, blocks, strict=True), start=1):
            point[f"attention/entropy_layer_{layer}"] = float(attention_entropy(alpha, block))
            shares = attention_shares(alpha, block, self.kinds)
            point |= {f"attention/share_layer_{layer}/{name}": share for name, share in shares.items()}
        point |= {f"model/{name}": value for name, value in self.model.dense.own_scores.monitored().items()}
        self.log.scalars(self.progress.step, point)
        self.log.event(
            "step", step=self.progress.step, loss=point["train/loss"], seeds_per_s=point["speed/seeds_per_s"],
            edges_per_s=point["speed/edges_per_s"],
        )  # fmt: skip
        self.window = self.new_window()

    def new_window(self) -> LogWindow:
        return LogWindow(self.worker, self.channels, self.store.cache)

    def validate(self) -> None:
        """Let the task measure the validation split. Collective. Raises `Stopped`."""
        started = time.perf_counter()
        chunk = self.config.evaluate.edge_chunk
        with self.texts.present(self.progress.step) if self.texts else nullcontext():
            representation_OR = infer_representations(self.model, self.store, chunk, self.worker.steps)
        metrics = self.task.measure(self.model, representation_OR, self.store, self.worker, "valid")
        name = self.task.metric
        if not math.isfinite(metrics.get(name, math.nan)):
            raise DataError(
                f"train.metric={name} is undefined on the validation pairs, or not measured; they have "
                f"{', '.join(key for key, value in metrics.items() if math.isfinite(value))}: take one of these"
            )
        found = {"epoch": self.epoch, "step": self.progress.step, **metrics}
        better = self.progress.validated(found, name, self.task.higher_is_better)
        self.log.scalars(self.progress.step, {f"valid/{name}": value for name, value in metrics.items()})
        self.log.scalars(self.progress.step, learned_numbers(self.model.encoder))
        for curve in learned_curves(self.model.encoder):
            tag = f"attention_{curve.term}/layer_{curve.layer}/{curve.edge_type}"
            self.log.curve(self.progress.step, tag, curve.knots, curve.factors)
        took = time.perf_counter() - started
        self.window.clock.pause(took)
        self.log.event(
            "valid", epoch=self.epoch, step=self.progress.step, best=better, metric=name, value=metrics[name],
            sample=sample_in_words(metrics), took=took,
        )  # fmt: skip

    def save(self) -> None:
        """Write the state; it is committed in the background. Collective."""
        with self.window.clock.phase("checkpoint"):
            self.writer.wait()
            # counted first: no checkpoint is there whose steps are not
            if self.private is not None and (spent := self.private.saved(self.progress.step)) is not None:
                self.log.scalars(self.progress.step, {"privacy/epsilon_spent": spent})
            self.log.flush()
            self.writer.start(take_snapshot(self.config, self.model, self.optimizers, self.store, self.progress))
        self.saved_at = time.monotonic()
        self.log.event("save", step=self.progress.step)

    def load_best(self) -> None:
        """Put the weights of the best validation back, where they are not the present ones. Collective."""
        best = self.progress.best
        if best and best["step"] != self.progress.step:
            load_best(self.checkpoints, best["step"], self.model, self.store)

    def result(self, stopped: bool) -> dict[str, Any]:
        """The result of the job, the same on every rank; memory is the sum of the ranks' peaks. Collective."""
        progress = self.progress
        return {
            "stopped": stopped,
            "epochs": self.epoch,
            "steps": progress.step,
            "best_epoch": progress.best.get("epoch", self.epoch),
            "blend": {},
            "half_life": None,
            "blended": None,
            "calibration": None,
            "valid": {name: value for name, value in progress.best.items() if name not in ("epoch", "step")},
            "history": progress.history,
            "losses": progress.losses,
            "init_from": None if self.loaded is None else self.loaded.lines(),
            "privacy": None if self.private is None else self.private.summary(self.worker.control),
            "trained": trained_share(self.model, self.worker.control)._asdict(),
            "peak_memory_bytes": int(self.worker.control.sum(torch.tensor([peak_memory()]))),
        }


def autocast(precision: str, device: torch.device):  # type: ignore[no-untyped-def]
    """Mixed precision of the forward pass for bfloat16, nothing otherwise."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
