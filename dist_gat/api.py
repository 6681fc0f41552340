"""The verbs as Python functions. The command line adds nothing but parsing and printing.

    from dist_gat import api

    config = api.load_config("configs/ml-100k.yaml", ["train.num_epochs=5"])
    api.prepare(config)
    api.train(config)
    api.evaluate(config)["test"]["recall@20"]
    api.compare(config, ["popularity", "ease", "recipe"])["models"]["ease"]["metrics"]["recall@20"]
    api.recommend(config.run_folder, users=[196], k=10)

`fetch` and `write_synthetic` are the verb `data`; `doctor()` returns its findings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from dist_gat.config import Config
from dist_gat.config_file import load_config
from dist_gat.data.registry import fetch
from dist_gat.data.synthetic import write_synthetic
from dist_gat.errors import DataError, DistGatError
from dist_gat.evaluate.baselines.baseline import evaluate_baseline
from dist_gat.evaluate.contenders import MODELS, baseline_worker, choose_contenders, held_out_split, model_recipe
from dist_gat.evaluate.evaluator import evaluate_worker
from dist_gat.evaluate.explanation import explain_item
from dist_gat.evaluate.saved_model import check_run_folder, open_model, recommend_items
from dist_gat.evaluate.trained_run import (
    COMPARISON_FILE,
    EVALUATION_FILE,
    RunSource,
    locate_run,
    model_digest,
    open_trained_run,
)
from dist_gat.final_recipe import final_recipe
from dist_gat.graph.part import open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.launcher.doctor import examine as doctor
from dist_gat.launcher.launch import load_tuner, run_job, with_absolute_paths
from dist_gat.launcher.local import run_processes
from dist_gat.launcher.trial import (
    TUNE_FOLDER,
    best_trial,
    describe,
    open_search,
    share_cores,
    write_best,
)
from dist_gat.pages.explanation_page import explanation_page
from dist_gat.pages.page import save_page
from dist_gat.pages.report import report_page
from dist_gat.plan.constants import DEFAULT, read_constants
from dist_gat.plan.plan import make_plan
from dist_gat.plan.workload import GraphShape
from dist_gat.space import read_space
from dist_gat.storage import refuse_links_out, write_text
from dist_gat.train.archive import open_archive
from dist_gat.train.metrics import log_evaluation
from dist_gat.train.resume import check_resume
from dist_gat.train.run_folder import clear_run, lock_run, sweep_run
from dist_gat.train.trainer import train_worker

Progress = Callable[[str], None]

__all__ = [
    "compare",
    "doctor",
    "evaluate",
    "explain",
    "fit",
    "fetch",
    "load_config",
    "plan",
    "prepare",
    "recommend",
    "report",
    "train",
    "tune",
    "write_synthetic",
]


def _be_silent(message: str) -> None:
    pass


def prepare(config: Config, progress: Progress = _be_silent) -> dict[str, Any]:
    """Write `config.data.prepared` from the interactions; returns counts, edge cut and balance.

    Raises `DataError` on bad input, and writes nothing then.
    """
    started = time.perf_counter()
    report = prepare_dataset(config.name, config.data, config.parts, config.seed, progress)
    return {**report, "seconds": time.perf_counter() - started}


def train(config: Config, quiet: bool = True, verify: bool = False, progress: Progress = _be_silent) -> dict[str, Any]:
    """Train on the workers of `config.launch`; writes checkpoints, TensorBoard logs and the saved model to
    `config.run_folder`. Goes on from the newest checkpoint that is there.

    Returns epochs, steps, the best epoch, its validation metrics, the history of validations, the loss of
    every step, seconds, `resumed_from`, a step or None, and `stopped`: whether a signal ended the run early, in
    which case there is a checkpoint but no saved model. Before any worker starts, the files of the data set are
    checked: size and ends, and with `verify` the SHA-256 of them whole. Raises `StorageError` where the data set
    is not prepared or damaged, a checkpoint is damaged or another run holds the folder, `ConfigError` where the
    checkpoints belong to other settings or the run would replace a folder that is none of ours, `TrainingError`
    where a number is not finite, `ClusterError` where a worker fails.
    """
    started = time.perf_counter()
    check_run_folder(config.run_folder)
    prepared = open_prepared(config.data.prepared, verify, progress)
    with lock_run(config.run_folder):
        archive = open_archive(config.run_folder, config.checkpoint)
        if config.checkpoint.resume == "restart":
            archive.clear()
            clear_run(config.run_folder)
            # a worker that Ray starts again goes on from this run's checkpoints
            config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"resume": "auto"})})
        sweep_run(config.run_folder)
        step = check_resume(archive, config, prepared)
        result = {"resumed_from": step, **run_job(train_worker, config, quiet)}
    return {"run": str(config.run_folder), **result, "seconds": time.perf_counter() - started}


def fit(config: Config, quiet: bool = True, progress: Progress = _be_silent) -> dict[str, Any]:
    """From the table to a tested model: `prepare` if need be, `train`, train once more on training and validation
    pairs for as many epochs as were best, and evaluate that model, once, on the test pairs.

    Epoch and blend are chosen on validation alone. The model to recommend with is in `final` of the run folder.
    Goes on where it was stopped. Returns `chosen` and `final`, what `train` returned, `metrics` of the held-out
    `split`, `run`, the folder of the last model, `seconds`, and `stopped`. Without validation pairs the first model
    is the last. Raises what `prepare`, `train` and `evaluate` raise.
    """
    started = time.perf_counter()
    if not Path(config.data.prepared).exists():
        prepare(config, progress)
    prepared = open_prepared(config.data.prepared, progress=progress)
    chosen = train(config, quiet, progress=progress)
    result = {"chosen": chosen, "final": chosen, "run": chosen["run"], "stopped": chosen["stopped"]}
    if not chosen["stopped"]:
        last = config
        if prepared.num_edges("valid") and prepared.num_edges("test"):
            last = final_recipe(config, chosen)
            if not Path(last.data.prepared).exists():
                prepare(last, progress)
            progress(f"training on the validation pairs too: {chosen['best_epoch']} epochs")
            final = train(last, quiet, progress=progress)
            result |= {"final": final, "run": final["run"], "stopped": final["stopped"]}
        if not result["stopped"]:
            split = held_out_split(prepared)
            result |= {"split": split, "metrics": evaluate(last, quiet, progress=progress)[split]}
    return {**result, "seconds": time.perf_counter() - started}


def evaluate(
    config: Config, quiet: bool = True, verify: bool = False, progress: Progress = _be_silent
) -> dict[str, Any]:
    """Full-ranking metrics of the saved model on `valid` and `test`, and of the configured baselines on `test`.

    `slices` has the metrics by user activity and item popularity, coverage, novelty and diversity of both splits. All
    of the model's numbers go to TensorBoard too, and to `evaluation.json` in the run folder, where `report` finds
    them. The files of model and data set are checked as in `train`. Raises `StorageError` where there is no saved
    model of this data set, or where one of them is damaged.
    """
    started = time.perf_counter()
    check_run_folder(config.run_folder)
    open_model(config.run_folder / "model", verify, progress)
    prepared = open_prepared(config.data.prepared, verify, progress)
    result: dict[str, Any] = run_job(evaluate_worker, config, quiet)
    log_evaluation(config.run_folder, result)
    split = held_out_split(prepared)
    if config.evaluate.baselines:
        result["baselines"] = {
            name: {split: evaluate_baseline(name, prepared, split, config.evaluate)}
            for name in config.evaluate.baselines
        }
    result |= {"seconds": time.perf_counter() - started, "model_sha256": model_digest(config.run_folder)}
    write_text(config.run_folder / EVALUATION_FILE, json.dumps(result))
    return result


def compare(
    config: Config,
    models: Sequence[str] | None = None,
    quiet: bool = True,
    progress: Progress = _be_silent,
) -> dict[str, Any]:
    """Baselines and models on the same split with the same metrics; `models` picks some of `CONTENDERS`.

    Returns the `split`, `seconds`, `stopped`, and by name in `models` the `metrics`, `seconds`, `peak_memory_bytes`
    summed over processes, and a `note`, which says why a row has no metrics. A baseline runs in a process of its own.
    The recipe trains in its run folder and its relatives below it, in `compare/NAME`; each goes on from its
    checkpoints. The result also goes to `compare.json` in the run folder, where `report` finds it. Raises
    `StorageError` where the data set is not prepared, `ConfigError` for an unknown name.
    """
    started = time.perf_counter()
    split = held_out_split(open_prepared(config.data.prepared))
    rows: dict[str, dict[str, Any]] = {}
    stopped = False
    for name in choose_contenders(models):
        begun = time.perf_counter()
        progress(f"{name}:")
        try:
            row = _run_model(name, config, split, quiet) if name in MODELS else _run_baseline(name, config)
        except DistGatError as err:
            row = {"note": str(err)}
        stopped = row.pop("stopped", False)
        row = {"metrics": {}, "peak_memory_bytes": None, "note": "", **row}
        rows[name] = {"seconds": time.perf_counter() - begun, **row}
        if stopped:
            break
    result = {"split": split, "models": rows, "stopped": stopped, "seconds": time.perf_counter() - started}
    config.run_folder.mkdir(parents=True, exist_ok=True)
    write_text(config.run_folder / COMPARISON_FILE, json.dumps(result))
    return result


def _run_model(name: str, config: Config, split: str, quiet: bool) -> dict[str, Any]:
    recipe = model_recipe(name, config)
    trained = train(recipe, quiet)
    if trained["stopped"]:
        return {"stopped": True, "note": f"stopped and saved at step {trained['steps']}; the same command goes on"}
    step = trained["resumed_from"]
    return {
        "metrics": evaluate(recipe, quiet)[split],
        "peak_memory_bytes": trained["peak_memory_bytes"],
        "note": "" if step is None else f"went on from step {step}; the seconds are those since then",
    }


def _run_baseline(name: str, config: Config) -> dict[str, Any]:
    launch = config.launch.model_copy(update={"num_workers": 1, "use_gpu": False})
    return run_processes(partial(baseline_worker, name), config.model_copy(update={"launch": launch}))


def tune(
    config: Config, space: str | Path, trials: int = 20, concurrent: int | None = None, minutes: float | None = None,
    workers: int = 1, progress: Progress = _be_silent,
) -> dict[str, Any]:  # fmt: skip
    """Search for the configuration with the best `train.metric` on the validation split; the test split plays no part.

    space: a YAML file, see `dist_gat.space`. Ray Tune runs up to `trials` trials, `concurrent` at a time, each an
    ordinary run on `workers` local workers in `tune/trials/NUMBER` of the run folder, for `minutes` at most. Goes on
    with the search that is in the folder: what has ended is not run again, what has not goes on from its checkpoint.

    Returns the `metric`, the `trials` (number, values, status, value, epoch, epochs, seconds, note), the number of the
    `best` or None, the file `recipe` with its configuration, `seconds`, and `stopped`: whether it ended before all
    trials did, by a signal or because Ray lost some, and not by `minutes`.
    Raises `ConfigError` without Optuna, for a space that does not fit and for a folder of another search.
    """
    started = time.perf_counter()
    distributions = read_space(Path(space), config)
    run_tuner = load_tuner()
    check_run_folder(config.run_folder)
    prepared = open_prepared(config.data.prepared, progress=progress)
    if not prepared.num_edges("valid"):
        raise DataError(
            f"{prepared.folder}: no validation interactions, by which trials are compared; set data.split.valid_ratio "
            "or data.valid, and prepare again"
        )
    folder = config.run_folder / TUNE_FOLDER
    with lock_run(folder):
        records = open_search(folder, config, distributions, prepared)
        for_trials, at_a_time = share_cores(with_absolute_paths(config), workers, concurrent)
        ended, name = sum(trial.status != "unfinished" for trial in records), config.train.metric
        progress(f"{ended} of {trials} trials are there already, {at_a_time} run at a time")
        stopped = ended < trials and run_tuner(
            train, for_trials, distributions, records, trials, at_a_time, minutes,
            lambda trial: progress(describe(trial, trials, name)),
        )  # fmt: skip
        best = best_trial(records)
        recipe = str(write_best(config, best)) if best else None
    return {
        "run": str(config.run_folder),
        "metric": name,
        "stopped": stopped,
        "best": best.number if best else None,
        "recipe": recipe,
        "trials": [trial.model_dump() for trial in records],
        "seconds": time.perf_counter() - started,
    }


def recommend(
    model: str | Path, users: Sequence[Any], k: int = 10, verify: bool = False, progress: Progress = _be_silent
) -> pl.DataFrame:
    """The K best new items of each user: columns user_id, item_id, score, rank[, title].

    `model` is a run folder or the model folder in it; nothing else is read. Its files are checked as in `train`.
    Raises `DataError` for an unknown user, `StorageError` for a damaged model.
    """
    folder = Path(model)
    if (folder / "model").is_dir():
        refuse_links_out(folder)
        folder = folder / "model"
    return recommend_items(open_model(folder, verify, progress), [str(user) for user in users], k)


def explain(
    run: RunSource, user: Any, item: Any = None, top: int = 10, html: str | Path | None = None,
    overrides: Sequence[str] = (), verify: bool = False, progress: Progress = _be_silent,
) -> dict[str, Any]:  # fmt: skip
    """Which of a user's interactions, and which users behind them, the attention weighs for an item.

    `run` is a configuration, a recipe or a run folder; the data set that the model was trained on is read too.
    `dist_gat.evaluate.explanation` says what is in the result; `html` is a file for a page of it. With `verify` the
    SHA-256 of model and data set is checked first. Raises `DataError`
    for an unknown user or item, `StorageError` where there is no saved model of this data set.
    """
    item = None if item is None else str(item)
    opened = open_trained_run(run, overrides, verify, progress)
    explanation = explain_item(opened, str(user), item, top, progress)
    if html is not None:
        save_page(Path(html), explanation_page(explanation))
    return explanation


def report(
    run: RunSource, html: str | Path | None = None, overrides: Sequence[str] = (), verify: bool = False,
    progress: Progress = _be_silent,
) -> Path:  # fmt: skip
    """Write the page of a run, `report.html` in its folder by default: curves, results, attention, configuration.

    `run` and `verify` are as in `explain`; a run that was stopped has a page too, but nothing to verify. Returns the
    file. Raises `StorageError` where the folder is not that of a run.
    """
    page = report_page(run, overrides, verify, progress)
    path = locate_run(run, overrides)[1] / "report.html" if html is None else Path(html)
    save_page(path, page)
    return path


def plan(
    config: Config, nodes: int, edges: int, workers: int, bandwidth_gbps: float | None = None,
    hosts: int | None = None, cores: int | None = None, constants: str | Path | None = None, **shape: Any,
) -> dict[str, Any]:  # fmt: skip
    """What training would need on a graph of so many nodes and training interactions: nothing is read or started.

    bandwidth_gbps: gigabytes a second that each worker can send. constants: a file of `benchmarks.cost`; by default
    those of the kind of device, with their `origin` in the result. shape: fields of `GraphShape`. Returns what
    `Plan.summary` does, in bytes and seconds. Raises `ConfigError`.
    """
    file = Path(constants) if constants is not None else DEFAULT[config.launch.use_gpu]
    bandwidth = None if bandwidth_gbps is None else 1e9 * bandwidth_gbps
    graph = GraphShape(nodes, edges, **shape)
    return make_plan(config, graph, workers, read_constants(file), hosts, cores, bandwidth).summary()
