"""Training as a job: the loop, and after it the blend and the saved model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dist_gat.base.addresses import below, is_url
from dist_gat.base.fetched_folder import upload_folder
from dist_gat.base.peak_memory import reset_peak_memory
from dist_gat.base.remote_folder import RemoteFolder
from dist_gat.config.model_sections import AdapterConfig
from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import infer_representations
from dist_gat.evaluate.kept_texts import use_present_vectors
from dist_gat.exchange.fail_together import together
from dist_gat.exchange.long_work import Stopped
from dist_gat.exchange.worker import Worker
from dist_gat.filters.blend import build_blend
from dist_gat.nn.adapters import merge_adapter
from dist_gat.serve.saved_model import RANKING_ROWS, save_model
from dist_gat.tasks.build_task import single_tasks
from dist_gat.tasks.pair_task import PairTask
from dist_gat.train.adapter_files import ADAPTER_FOLDER, save_adapter
from dist_gat.train.adapter_files import FORMAT as ADAPTER_FORMAT
from dist_gat.train.trainer import Trainer


def train_worker(config: Config, worker: Worker) -> dict[str, Any]:
    """Train one recommender; every rank calls this. Returns the result, the same on every rank.

    Goes on from the newest checkpoint in the run folder, on this or another number of ranks. From here on a request to
    stop ends the training, or what comes after it, with a checkpoint.
    """
    reset_peak_memory()
    trainer = Trainer(config, worker)
    try:
        with worker.requests.heard():
            return trainer.result(stopped=True) if trainer.run() else save_best(trainer)
    except Stopped:
        # in what comes after training, which the last checkpoint has whole
        trainer.log.event("stop", step=trainer.progress.step)
        return trainer.result(stopped=True)
    finally:
        trainer.log.close()
        trainer.remote_logs.send()


def save_adapter_of(trainer: Trainer, adapter: AdapterConfig) -> None:
    """Write the adapter alone, here and beside a run at a URL. Collective."""
    config, worker = trainer.config, trainer.worker
    with together(worker.control, f"{config.run_folder}: the adapter can't be written"):
        if worker.rank == 0:
            save_adapter(config.run_folder, trainer.model, adapter, trainer.progress.base)
            if is_url(config.run):
                remote = RemoteFolder(below(config.run, ADAPTER_FOLDER))
                upload_folder(config.run_folder / ADAPTER_FOLDER, remote, ADAPTER_FORMAT)


def save_best(trainer: Trainer) -> dict[str, Any]:
    """Save, from the best checkpoint, the model that `recommend` reads. Collective. Raises `Stopped`."""
    config, model, store, worker = trainer.config, trainer.model, trainer.store, trainer.worker
    trainer.load_best()
    result = trainer.result(stopped=False)
    trainer.log.event("export", epoch=result["best_epoch"])
    if config.model.adapter is not None:
        # where ID rows trained too, the base and what is small beside them are not the model
        if config.model.adapter.rows == "frozen":
            save_adapter_of(trainer, config.model.adapter)
        # what is saved is a plain model, which works without its base
        merge_adapter(model)
    use_present_vectors(model.dense.text, store, worker.control, worker.steps)
    task, nodes = trainer.task, store.ownership.own_nodes
    relation = task.relation
    depths: list[Tensor] = []
    representation_OR = infer_representations(model, store, config.evaluate.edge_chunk, worker.steps, depths)
    rows_OR = task.rows(model, representation_OR, nodes, store)
    # of all interactions, whichever items validation of the model goes by
    metric = config.train.metric.rpartition("/")[2]
    blend = build_blend(rows_OR, store, worker, relation, config.blend, config.evaluate, metric, config.seed)
    result |= {"blend": blend.weights, "half_life": blend.half_life, "blended": blend.value}
    pairs: dict[str, dict[str, Any]] = {}
    more_rows: dict[str, Tensor] = {}
    for number, (name, single) in enumerate(single_tasks(task).items()):
        if not isinstance(single, PairTask):
            continue
        found, _ = single.values(model, representation_OR, store, worker, "valid")
        pairs[name] = {"rows": RANKING_ROWS, **single.saved(model, found)}
        if number:
            # the first task's are the ranking rows
            pairs[name]["rows"] = f"{RANKING_ROWS}.{name}"
            more_rows[pairs[name]["rows"]] = single.rows(model, representation_OR, nodes, store)
    result["calibration"] = {name: saved["calibration"] for name, saved in pairs.items()}
    save_model(config, model, rows_OR, blend, store, relation, worker, pairs, more_rows, depths, result["privacy"])
    trainer.log.hyper_parameters(config.model_dump(mode="json"), result["valid"])
    told = ("epochs", "steps", "best_epoch", "valid", "peak_memory_bytes")
    trainer.log.event("done", **{key: result[key] for key in told})
    return result
