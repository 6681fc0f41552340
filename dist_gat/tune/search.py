"""`tune`: a search for better settings, run by Ray Tune."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dist_gat.base.errors import DataError
from dist_gat.base.extra import missing
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.run_folder import lock_run
from dist_gat.config.privacy_section import refuse_choice
from dist_gat.config.run_url import refuse_run_url
from dist_gat.config.sections import Config
from dist_gat.graph.made_from import open_made
from dist_gat.launcher.launch import with_absolute_paths
from dist_gat.launcher.ray import QUIET, set_defaults
from dist_gat.serve.saved_model import check_run_folder
from dist_gat.tasks.build_task import predicted_relation
from dist_gat.tune.search_space import read_space
from dist_gat.tune.trial import TUNE_FOLDER, best_trial, describe, open_search, share_cores, write_best
from dist_gat.workflows.run import train


def tune(
    config: Config, space: str | Path, trials: int = 20, concurrent: int | None = None, minutes: float | None = None,
    workers: int = 1, progress: Progress = be_silent,
) -> dict[str, Any]:  # fmt: skip
    """Search for the configuration with the best `train.metric` on the validation split; the test split plays no part.

    space: a YAML file, see `dist_gat.tune.search_space`. Ray Tune runs up to `trials` trials, `concurrent` at a time,
    each an ordinary run on `workers` local workers in `tune/trials/NUMBER` of the run folder, for `minutes` at most.
    Goes on with the search that is in the folder: trials that ended are not run again, the others go on from their
    checkpoints.

    Returns the `metric`, the `trials` (number, values, status, value, epoch, epochs, seconds, note), the number of the
    `best` or None, the file `recipe` with its configuration, `seconds`, and `stopped`: whether it ended before all
    trials did, by a signal or because Ray lost some, and not by `minutes`.
    Raises `ConfigError` without Optuna, for a space that does not fit and for a folder of another search.
    """
    started = time.perf_counter()
    refuse_run_url(config, "tune")
    refuse_choice(config.privacy, "tune")
    distributions = read_space(Path(space), config)
    run_tuner = load_tuner()
    check_run_folder(config.run_folder)
    prepared = open_made(config, progress=progress, parts=())
    if not prepared.num_pairs(predicted_relation(prepared.schema, config.task), "valid"):
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
        best = best_trial(records, config.higher_is_better)
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


def load_tuner() -> Callable[..., bool]:
    """`run_tuner`, imported now, because it needs Ray and an extra. Raises `ConfigError` without Optuna."""
    set_defaults(QUIET)
    try:
        from dist_gat.tune.tuner import run_tuner
    except ModuleNotFoundError as err:
        if err.name != "optuna":
            raise
        raise missing("optuna", "tune", "tune") from None
    return run_tuner
