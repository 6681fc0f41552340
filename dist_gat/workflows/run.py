"""One run, `prepare`, `train` and `evaluate`: what the other workflows are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from dist_gat.base.json_text import to_json
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.run_folder import clear_run, lock_run, refuse_foreign_run, sweep_run
from dist_gat.base.storage import MANIFEST, refuse_links_out, sha256_of, write_text
from dist_gat.baselines.baseline import evaluate_baseline
from dist_gat.checkpoints.checkpoint_store import CHECKPOINTS_FOLDER, open_checkpoints
from dist_gat.checkpoints.resume import check_resume
from dist_gat.config.sections import Config
from dist_gat.data.pseudonyms import open_pseudonyms
from dist_gat.evaluate.full_ranking import held_out_split
from dist_gat.evaluate.new_user_metrics import new_user_metrics
from dist_gat.exchange.worker import lone_worker
from dist_gat.filters.history_weights import check_history
from dist_gat.graph.made_from import differing_from, open_made, record_of
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.graph.publish_prepared import is_prepared, staged
from dist_gat.jobs.evaluation import evaluate_worker
from dist_gat.jobs.training import train_worker
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.progress import tell_lines
from dist_gat.launcher.ray_tasks import ray_tasks
from dist_gat.nn.edge_terms import check_edges
from dist_gat.sampling.hop_plan import plan_hops
from dist_gat.serve.new_nodes import open_new_nodes
from dist_gat.serve.new_users import open_new_users
from dist_gat.serve.ranker import open_ranker
from dist_gat.serve.saved_model import SavedModel, check_run_folder, open_model
from dist_gat.tasks.build_task import build_task, predicted_relation
from dist_gat.train.adapter_files import ADAPTER_FOLDER, check_adapter_folder
from dist_gat.train.begin import check_frozen
from dist_gat.train.event_log import PROGRESS_FILE
from dist_gat.train.init_from import open_base
from dist_gat.train.run_log import EVENTS_FILES, EVENTS_FOLDER, log_evaluation
from dist_gat.workflows.remote_run_folder import claimed, clear_remote, fetch_result, send_results
from dist_gat.workflows.result_files import COMPARISON_FILE, EVALUATION_FILE, refuse_foreign_results

# beside the checkpoints: logs, the saved model and its evaluation
LEFT_BY_RUNS = (
    f"{EVENTS_FOLDER}/**/{EVENTS_FILES}",
    "model",
    ADAPTER_FOLDER,
    PROGRESS_FILE,
    EVALUATION_FILE,
    COMPARISON_FILE,
)


def prepare(
    config: Config, progress: Progress = be_silent, seed: int | None = None, tables: Mapping[str, Any] | None = None,
    pseudonymize: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write `config.data.prepared` from the interactions; returns counts, edge cut and balance.

    seed: of the split and the parts, by default the configuration's. tables: data frames, data sets and matrices in
    memory, by the names that the recipe has for files. On a cluster (`launch.address`) its workers read and sort, and
    the same files come out. pseudonymize: a key file, which is written where there is none: external IDs become
    pseudonyms, see docs/privacy.md. Raises `DataError` on bad input, and writes nothing then.
    """
    started = time.perf_counter()
    seed = config.seed if seed is None else seed
    pseudonyms = None if pseudonymize is None else open_pseudonyms(Path(pseudonymize), progress)
    on_cluster = config.launch.launcher == "ray" and config.launch.address is not None
    with (
        staged(config.data, pseudonyms, config.launch.cache_folder, progress) as data,
        ray_tasks(config.launch) if on_cluster else nullcontext() as tasks,
    ):
        report = prepare_dataset(
            config.name, data, config.parts, seed, progress, tables, tasks=tasks, pseudonyms=pseudonyms
        )
    return {**report, "seconds": time.perf_counter() - started}


def prepare_if_need_be(config: Config, progress: Progress, seed: int | None = None) -> None:
    """Write the prepared folder of a recipe where it is not there, or was made from other settings or files.

    seed: the one that it must have been made with; by default any will do, and a new folder gets the configuration's.
    """
    if is_prepared(config.data.prepared):
        record = record_of(open_prepared(config.data.prepared, parts=(), cache=config.launch.cache_folder))
        differ = [found for kind in differing_from(record, config.data, config.parts) for found in kind]
        if seed not in (None, record["seed"]):
            differ.append(f"seed: saved {record['seed']}, now {seed}")
        if not differ:
            return
        progress(f"{config.data.prepared} was made from other settings or files: {'; '.join(differ)}; preparing again")
    prepare(config, progress, seed)


def refuse_foreign_folder(folder: Path) -> None:
    """Raise `ConfigError` where a run in this folder would replace what is none of ours."""
    refuse_foreign_run(folder, (EVENTS_FOLDER, PROGRESS_FILE, CHECKPOINTS_FOLDER))
    refuse_foreign_results(folder, EVALUATION_FILE, COMPARISON_FILE)


def train(config: Config, quiet: bool = True, verify: bool = False, progress: Progress = be_silent) -> dict[str, Any]:
    """Train on the workers of `config.launch`; writes checkpoints, TensorBoard logs and the saved model to
    `config.run_folder`. Goes on from the newest checkpoint that is there.

    Returns epochs, steps, the best epoch, its validation metrics, the history of validations, the loss of
    every step, seconds, `resumed_from`, a step or None, and `stopped`: whether a signal ended the run early, in
    which case there is a checkpoint but no saved model. Before any worker starts, the files of the data set are
    checked: size and ends, and with `verify` the SHA-256 of them whole; and that it has what task, sampling, layers and
    blend read. Raises `StorageError` where the data set is not prepared or damaged, a checkpoint is damaged or another
    run holds the folder, `DataError` where the data set lacks what is to be read, `ConfigError` where the checkpoints
    belong to other settings or the run would replace what is none of ours, `TrainingError` where a number is not
    finite, `ClusterError` where a worker fails.
    """
    started = time.perf_counter()
    check_run_folder(config.run_folder)
    refuse_foreign_folder(config.run_folder)
    check_adapter_folder(config.run_folder)
    prepared = open_made(config, verify, progress, parts=())
    # what the data set has not is refused before workers start
    task = build_task(config, prepared)
    plan_hops(prepared.schema, config.sampling, ())
    check_edges(config.model, prepared)
    check_frozen(config, prepared, task)
    check_history(prepared, predicted_relation(prepared.schema, config.task), config.blend)
    with lock_run(config.run_folder), claimed(config, progress):
        checkpoints = open_checkpoints(config.run_folder, config.checkpoint_url)
        if config.checkpoint.resume == "restart":
            checkpoints.clear()
            clear_run(config.run_folder, LEFT_BY_RUNS)
            clear_remote(config, LEFT_BY_RUNS)
            # a worker that Ray starts again goes on from this run's checkpoints
            config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"resume": "auto"})})
        sweep_run(config.run_folder)
        step = check_resume(checkpoints, config, prepared)
        if step is None and config.train.init_from is not None:
            open_base(config.train.init_from)
        started_by = "Ray" if config.launch.launcher == "ray" else "local"
        progress(f"starting {config.launch.num_workers} {started_by} workers")
        result = {"resumed_from": step, **run_job(train_worker, config, quiet)}
    return {"run": config.run or str(config.run_folder), **result, "seconds": time.perf_counter() - started}


def evaluate(
    config: Config, quiet: bool = True, verify: bool = False, progress: Progress = be_silent
) -> dict[str, Any]:
    """Metrics of the saved model on `valid` and `test`, and full-ranking metrics of the configured baselines.

    The baselines are ranked on `test`, or on `valid` where there are no test pairs; a `note` says what validation
    chose for them.

    `slices` has the metrics by user activity and item popularity of both splits, of a ranking coverage, novelty and
    diversity too; `spread` the standard errors of the metrics; `details` of predicted pairs what `Likelihood.details`
    says. All of the model's numbers go to TensorBoard too, and to `evaluation.json` in the run folder, where `report`
    finds them, null where they are undefined. Where it was asked to stop, `stopped` is all there is. The files of model
    and data set are checked as in `train`. Raises `StorageError` where there is no saved model of this data set, or
    where one of them is damaged.
    """
    started = time.perf_counter()
    refuse_links_out(config.run_folder)
    fetch_result(config, EVALUATION_FILE)
    refuse_foreign_results(config.run_folder, EVALUATION_FILE)
    saved = open_model(config.model_name, verify, progress, cache=config.launch.cache_folder)
    # baselines read all of it
    prepared = open_made(config, verify, progress, has_model=True, parts=None if config.evaluate.baselines else ())
    relation = predicted_relation(prepared.schema, config.task)
    split = held_out_split(prepared, relation)
    result: dict[str, Any] = run_job(evaluate_worker, config, quiet)
    if result.get("stopped"):
        return result
    if config.task.kind == "ranking":
        new = partial(_of_new_users, config, prepared, saved)
        result |= {
            name: result.get(name, {}) | new(name) for name in ("valid", "test") if prepared.num_cold_users(name)
        }
    log_evaluation(config.run_folder, result)
    if config.evaluate.baselines:
        worker = lone_worker(tell=tell_lines(progress))
        result["baselines"] = {}
        for name in config.evaluate.baselines:
            found = evaluate_baseline(
                name,
                prepared,
                relation,
                split,
                config.evaluate,
                config.train.metric,
                config.seed,
                worker,
                config.data.split.cold_user_history,
            )
            result["baselines"][name] = {split: found["metrics"], "note": found["note"]}
    result |= {"stopped": False, "seconds": time.perf_counter() - started}
    result["model_sha256"] = sha256_of(saved.folder / MANIFEST)
    write_text(config.run_folder / EVALUATION_FILE, to_json(result))
    send_results(config, EVALUATION_FILE, f"{EVENTS_FOLDER}/evaluate")
    return result


def _of_new_users(config: Config, prepared: PreparedGraph, saved: SavedModel, split: str) -> dict[str, float]:
    """Metrics of the saved model for the users of a split whom the recipe holds out."""
    new = open_new_users(open_ranker(saved), open_new_nodes(saved))
    best, lengths = partial(new.best_items, k=max(config.evaluate.ks)), config.data.split.cold_user_history
    return new_user_metrics(best, prepared, split, lengths, config.evaluate, config.seed)
