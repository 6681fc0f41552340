"""Training as a job: the loop, and after it the blend and the saved model."""

from __future__ import annotations

from typing import Any

from dist_gat.base.peak_memory import reset_peak_memory
from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import ranking_rows
from dist_gat.exchange.worker import Worker
from dist_gat.filters.blend import build_blend
from dist_gat.serve.saved_model import save_model
from dist_gat.tasks.pair_task import PairTask, calibration_of
from dist_gat.tasks.ranking import RankingTask
from dist_gat.train.trainer import Trainer


def train_worker(config: Config, worker: Worker) -> dict[str, Any]:
    """Train one recommender; every rank calls this. Returns the result, the same on every rank.

    Goes on from the newest checkpoint in the run folder, on this or another number of ranks.
    """
    reset_peak_memory()
    trainer = Trainer(config, worker)
    try:
        return trainer.result(stopped=True) if trainer.run() else save_best(trainer)
    finally:
        trainer.log.close()


def save_best(trainer: Trainer) -> dict[str, Any]:
    """Save, from the best checkpoint, the model that `recommend` reads. Collective."""
    config, model, store, worker = trainer.config, trainer.model, trainer.store, trainer.worker
    trainer.load_best()
    result = trainer.result(stopped=False)
    trainer.log.event("export", epoch=result["best_epoch"])
    relation = trainer.task.relation
    rows_OR = ranking_rows(model, store, relation, config.evaluate.edge_chunk)
    blend = build_blend(
        rows_OR, store, worker, relation, config.blend, config.evaluate, config.train.metric, config.seed
    )  # fmt: skip
    result["blend"] = blend.weights
    pair = None if isinstance(trainer.task, RankingTask) else pair_of(trainer, trainer.task)
    result["calibration"] = pair["calibration"] if pair else None
    save_model(config, model, rows_OR, blend, store, relation, worker.control, pair)
    trainer.log.hyper_parameters(config.model_dump(mode="json"), result["valid"])
    told = ("epochs", "steps", "best_epoch", "valid", "peak_memory_bytes")
    trainer.log.event("done", **{key: result[key] for key in told})
    return result


def pair_of(trainer: Trainer, task: PairTask) -> dict[str, Any]:
    """What turns products of ranking rows into predictions: see `dist_gat.serve.predict`. Collective."""
    found = task.values(trainer.model, trainer.store, trainer.worker, "valid")
    return {
        "labels": trainer.store.prepared.label_range(task.relation),
        "temperature": trainer.model.decoder.temperature,
        "constant": trainer.model.pair_constant,
        "calibration": calibration_of(trainer.config.task, found),
    }
