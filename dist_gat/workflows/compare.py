"""`compare`: baselines and models on the same split, one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from dist_gat.base.errors import DistGatError
from dist_gat.base.json_text import to_json
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.run_folder import lock_run
from dist_gat.base.storage import write_text
from dist_gat.config.data_sections import PRUNING
from dist_gat.config.run_url import refuse_run_url
from dist_gat.config.sections import Config
from dist_gat.evaluate.full_ranking import held_out_split
from dist_gat.graph.made_from import open_made, record_of
from dist_gat.jobs.baseline_run import baseline_worker
from dist_gat.launcher.local import run_processes
from dist_gat.launcher.progress import show_progress
from dist_gat.tasks.build_task import predicted_relation
from dist_gat.train.event_log import PROGRESS_FILE
from dist_gat.workflows.compared_models import choose_models, is_trained, model_recipe
from dist_gat.workflows.result_files import COMPARISON_FILE
from dist_gat.workflows.run import evaluate, prepare_if_need_be, refuse_foreign_folder, train


def compare(
    config: Config,
    models: Sequence[str] | None = None,
    quiet: bool = True,
    progress: Progress = be_silent,
) -> dict[str, Any]:
    """Baselines and models on the same split with the same metrics; `models` picks some of `compared_models`.

    Returns the `split`, `seconds`, `stopped`, and by name in `models` the `metrics`, `seconds`, `peak_memory_bytes`
    summed over processes, and a `note`, which says why a row has no metrics. A baseline runs in a process of its own.
    The recipe trains in its run folder and its relatives below it, in `compare/NAME`; each goes on from its
    checkpoints. The result also goes to `compare.json` in the run folder, where `report` finds it. Raises
    `StorageError` where the data set is not prepared, `ConfigError` where it is another than the recipe's, and for an
    unknown name.
    """
    started = time.perf_counter()
    refuse_run_url(config, "compare")
    refuse_foreign_folder(config.run_folder)
    prepared = open_made(config, progress=progress, parts=())
    relation = predicted_relation(prepared.schema, config.task)
    split = held_out_split(prepared, relation)
    rows: dict[str, dict[str, Any]] = {}
    stopped = False
    made = [name for name, one in config.data.relations.items() if one.nearest is not None]
    made += [PRUNING] if config.data.prune else []
    trains_text = config.model.text is not None
    for name in choose_models(models, config.task, prepared.has_times(relation), made, trains_text):
        begun = time.perf_counter()
        progress(f"{name}:")
        try:
            if is_trained(name):
                row = _run_model(name, config, record_of(prepared)["seed"], split, quiet)
            else:
                row = _run_baseline(name, config, quiet)
        except DistGatError as err:
            row = {"note": str(err)}
        stopped = row.pop("stopped", False)
        row = {"metrics": {}, "peak_memory_bytes": None, "note": "", **row}
        rows[name] = {"seconds": time.perf_counter() - begun, **row}
        if stopped:
            break
    result = {"split": split, "models": rows, "stopped": stopped, "seconds": time.perf_counter() - started}
    config.run_folder.mkdir(parents=True, exist_ok=True)
    write_text(config.run_folder / COMPARISON_FILE, to_json(result))
    return result


def _run_model(name: str, config: Config, seed: int, split: str, quiet: bool) -> dict[str, Any]:
    recipe = model_recipe(name, config)
    if recipe.data != config.data:
        prepare_if_need_be(recipe, be_silent, seed)
    trained = train(recipe, quiet)
    if trained["stopped"]:
        return {"stopped": True, "note": f"stopped and saved at step {trained['steps']}; the same command goes on"}
    step, evaluated = trained["resumed_from"], evaluate(recipe, quiet)
    if evaluated["stopped"]:
        return {"stopped": True, "note": "stopped in its evaluation; the same command goes on"}
    return {
        "metrics": evaluated[split],
        "peak_memory_bytes": trained["peak_memory_bytes"],
        "note": "" if step is None else f"went on from step {step}; the seconds are those since then",
    }


def _run_baseline(name: str, config: Config, quiet: bool) -> dict[str, Any]:
    launch = config.launch.model_copy(update={"num_workers": 1, "use_gpu": False})
    with lock_run(config.run_folder), show_progress(config.run_folder / PROGRESS_FILE, quiet):
        return run_processes(partial(baseline_worker, name), config.model_copy(update={"launch": launch}))
