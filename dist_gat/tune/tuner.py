"""A search by Ray Tune: Optuna proposes, ASHA stops early, an actor watches each trial. Imports ray and optuna.

Nothing is read back from Ray's or Optuna's own files, which are pickles: a search that goes on tells both of them again
what is in `trial.json` and in the trials' events.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from dist_gat.base.random import Purpose, make_key
from dist_gat.checkpoints.checkpoint_store import open_checkpoints
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.launcher.progress import EventTail
from dist_gat.launcher.ray import ray_cluster, set_defaults, stoppable
from dist_gat.launcher.stop_signals import STOP_FILE, StopFile
from dist_gat.train.event_log import PROGRESS_FILE
from dist_gat.tune.search_space import Distribution, Space
from dist_gat.tune.trial import TUNE_FOLDER, Trial, save_trial, trial_folder, trial_tree
from dist_gat.tune.trial_process import Run, TrialProcess

# Ray reads these in `fit` and in the processes that it starts.
QUIET_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
RAY_FOLDER = "ray"
STUDY = "dist-gat"
VALUE, EPOCHS = "value", "epochs"  # keys of a result
# Successive halving keeps one in three, after a ninth and a third of the epochs (Li et al., MLSys 2020)
REDUCTION = 3


def run_tuner(
    run: Run,
    config: Config,
    space: Space,
    trials: list[Trial],
    num_trials: int,
    concurrent: int,
    minutes: float | None,
    tell: Callable[[Trial], None],
) -> bool:
    """Finish the unfinished of `trials` and add new ones until there are `num_trials`; the list is kept up to date.

    `config.launch` has the workers of one trial. `tell` is called with every trial that ended. A first signal, and
    the end of `minutes`, stop the search when the running trials have saved; a second signal raises
    `KeyboardInterrupt`. Returns whether it ended before all trials did, for another reason than `minutes`.
    """
    set_defaults(QUIET_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = config.run_folder / TUNE_FOLDER
    stop_file = folder / STOP_FILE
    shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    launch = config.launch
    cpus = launch.num_workers * (launch.threads_per_worker or 1)
    resources = {"cpu": cpus, "gpu": launch.num_workers if launch.use_gpu else 0}
    with ray_cluster(launch.model_copy(update={"num_workers": cpus * concurrent})):
        proposals = Proposals(config, space, trials, tell)
        trainable = tune.with_parameters(WatchedTrial, run=run, launch=launch, stop_file=stop_file)
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=proposals,
                scheduler=halving(config, trials),
                num_samples=num_trials - sum(trial.status != "unfinished" for trial in trials),
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=RAY_FOLDER,
                storage_path=str(folder),
                # a trial saves by itself
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        with time_limit(minutes, stop_file) as is_over:
            stoppable(tuner.fit, StopFile(folder))
    shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    for trial in trials:
        if trial.status != "unfinished":
            clear_checkpoints(trial_tree(config, trial))
    is_complete = sum(trial.status != "unfinished" for trial in trials) >= num_trials
    return not is_complete and not is_over.is_set()


@contextmanager
def time_limit(minutes: float | None, stop_file: Path) -> Iterator[threading.Event]:
    """Request a stop, as a signal does, when the block has run for `minutes`; the event says whether it did."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        stop_file.touch()

    timer = threading.Timer(60 * minutes if minutes is not None else threading.TIMEOUT_MAX, end)
    timer.daemon = True
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()


class WatchedTrial(tune.Trainable):
    """The actor that runs one trial after another, each in a process of its own."""

    def setup(self, config: dict[str, Any], run: Run, launch: LaunchConfig, stop_file: Path) -> None:
        self.run, self.launch, self.stop_file = run, launch, stop_file
        self.start(config)

    def start(self, config: dict[str, Any]) -> None:
        self.process = TrialProcess(self.run, config["tree"], self.launch, self.stop_file)
        self.goes_on = False

    def step(self) -> dict[str, Any]:
        result = self.process.step()
        self.goes_on = result.get("status") == "unfinished"
        return {**result, "done": "status" in result}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial, after the one before was pruned or ended by itself."""
        self.process.kill()
        if not self.goes_on:
            clear_checkpoints(self.config["tree"])
        self.start(new_config)
        return True

    def cleanup(self) -> None:
        self.process.kill()


def clear_checkpoints(tree: dict[str, Any]) -> None:
    """Delete the checkpoints of a trial, which only an unfinished trial needs. No process may still be writing any."""
    open_checkpoints(Path(tree["run"]), tree["checkpoint"]["url"]).clear()


class Proposals(Searcher):
    """Hands Optuna's proposals to Ray Tune, unfinished trials first, and keeps the record of every trial."""

    def __init__(self, config: Config, space: Space, trials: list[Trial], tell: Callable[[Trial], None]) -> None:
        super().__init__(metric=VALUE, mode=mode_of(config))
        self.config, self.space, self.trials, self.tell = config, space, trials, tell
        self.folder = config.run_folder / TUNE_FOLDER
        self.waiting = deque(trial.number for trial in trials if trial.status == "unfinished")
        self.before_s = {trial.number: trial.seconds for trial in trials}
        self.numbers: dict[str, int] = {}
        self.optuna = open_study(config.seed, space, trials, mode_of(config))

    def __getstate__(self) -> dict[str, Any]:
        """For the pickle that Ray writes and nobody reads."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if (self.folder / STOP_FILE).exists():
            return Searcher.FINISHED
        values = values_of(self.space, self.optuna.suggest(trial_id))
        if self.waiting:
            number = self.waiting.popleft()
        else:
            number = len(self.trials) + 1
            self.trials.append(Trial(number=number, values=values))
            save_trial(self.folder, self.trials[-1])
        self.numbers[trial_id] = number
        return {"tree": trial_tree(self.config, self.trials[number - 1])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.note(trial_id, result, "unfinished")
        if VALUE in result:
            self.optuna.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial whose result has no status was pruned; an error means that its actor was lost."""
        lost = {"status": "unfinished", "note": "its Ray actor was lost; the same command goes on with it"}
        trial = self.note(trial_id, {**(result or {}), **lost} if error else result or {}, "pruned")
        if trial.status != "unfinished":
            is_failed = trial.status == "failed"
            self.optuna.on_trial_complete(trial_id, None if is_failed else result, is_failed)
            self.tell(trial)

    def note(self, trial_id: str, result: dict[str, Any], status: str) -> Trial:
        """Record a result; `status` applies where the result has none."""
        number = self.numbers[trial_id]
        update: dict[str, Any] = {"status": status, "note": ""}
        update |= {key: result[key] for key in ("status", "value", "epoch", "epochs", "note") if key in result}
        if "seconds" in result:
            update["seconds"] = self.before_s.get(number, 0.0) + result["seconds"]
        trial = self.trials[number - 1] = self.trials[number - 1].model_copy(update=update)
        save_trial(self.folder, trial)
        return trial

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a search goes on from its own records")


class SeededSampler(BaseSampler):
    """Optuna's TPE (Bergstra et al., NeurIPS 2011), with draws that are a function of (seed, number) and the trials
    before, so that a resumed search proposes what it would have proposed without the stop.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler = TPESampler(seed=int(make_key(self.seed, Purpose.SEARCH, trial.number)) % 2**32)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict:
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self.sampler.sample_independent(study, trial, name, distribution)


def mode_of(config: Config) -> str:
    """Which way `train.metric` is better, as Optuna and Ray Tune call it."""
    return "max" if config.higher_is_better else "min"


def open_study(seed: int, space: Space, trials: Sequence[Trial], mode: str = "max") -> OptunaSearch:
    """Optuna with the existing trials, in their order; it proposes the unfinished ones next."""
    storage, sampler = optuna.storages.InMemoryStorage(), SeededSampler(seed)
    direction: Any = "maximize" if mode == "max" else "minimize"
    study = optuna.create_study(storage=storage, study_name=STUDY, direction=direction, sampler=sampler)
    distributions = {key: optuna_distribution(distribution) for key, distribution in space.items()}
    for trial in trials:
        params = params_of(space, trial.values)
        if trial.status == "unfinished":
            study.enqueue_trial(params)
            continue
        state = TrialState.FAIL if trial.status == "failed" or trial.value is None else TrialState.COMPLETE
        value = trial.value if state == TrialState.COMPLETE else None
        study.add_trial(optuna.create_trial(state=state, value=value, params=params, distributions=distributions))
    return OptunaSearch(distributions, VALUE, mode, sampler=sampler, study_name=STUDY, storage=storage)


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """A choice is drawn by its position, because Optuna's own choices are plain values alone."""
    if distribution.choice is not None:
        return CategoricalDistribution(range(len(distribution.choice)))
    if distribution.kind == "integer":
        return IntDistribution(distribution.low, distribution.high)
    return FloatDistribution(distribution.low, distribution.high, log=distribution.kind == "log_uniform")


def values_of(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    return {key: d.choice[params[key]] if d.choice is not None else params[key] for key, d in space.items()}


def params_of(space: Space, values: dict[str, Any]) -> dict[str, Any]:
    return {key: d.choice.index(values[key]) if d.choice is not None else values[key] for key, d in space.items()}


def halving(config: Config, trials: Sequence[Trial]) -> ASHAScheduler:
    """ASHA over epochs, which is told the validations of the trials that ended."""
    # stopping a trial in its last epoch would save nothing
    last = max(1, config.train.num_epochs - 1)
    first = min(last, math.ceil(config.train.num_epochs / REDUCTION**2))
    scheduler = ASHAScheduler(EPOCHS, VALUE, mode_of(config), last, first, REDUCTION, stop_last_trials=False)
    for trial in trials:
        if trial.status in ("finished", "pruned"):
            past = SimpleNamespace(trial_id=f"trial {trial.number}")
            scheduler.on_trial_add(None, past)
            # the first validation of a run is its best so far
            best, folder = math.nan, trial_folder(config.run_folder / TUNE_FOLDER, trial.number)
            for event in EventTail(folder / PROGRESS_FILE).read():
                if event["event"] == "valid":
                    best = event["value"] if event["best"] else best
                    scheduler.on_trial_result(None, past, {EPOCHS: event["epoch"], VALUE: best})
    return scheduler
