"""`Trial`: one configuration of a search and what became of it, a line of JSON in a folder of its own.

RUN/tune/search.json            what is searched: the configuration, the space, the data set
RUN/tune/trials/0001/trial.json one trial; the folder is its run folder
RUN/tune/best.yaml              the recipe of the best one
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.run_folder import refuse_foreign_text, write_own_text
from dist_gat.base.storage import write_text
from dist_gat.config.differences import differing_settings, resume_rule
from dist_gat.config.files import dump_config, parse_config, place_run
from dist_gat.config.section import FREE, Section
from dist_gat.config.sections import Config
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.host import cores
from dist_gat.tune.search_space import Space, configure, dump_space

TUNE_FOLDER = "tune"
SEARCH_FILE, TRIAL_FILE, BEST_FILE = "search.json", "trial.json", "best.yaml"
VERSION = 1
# a resumed run may change these; a resumed search may not, because they decide when its trials stop
COMPARED = ("train.patience", "train.until", "train.min_gain", "train.validate_every")
# of more trials at a time, each would learn less from the others
MAX_CONCURRENT = 4


class Trial(Section):
    """`finished`: trained to its end. `pruned`: stopped early, because others were better by then. `failed`: `note`
    says why. `unfinished`: goes on with the next search. value: the best validation metric, at `epoch` of `epochs`.
    """

    number: int = Field(ge=1)
    values: dict[str, Any]
    status: Literal["unfinished", "finished", "pruned", "failed"] = "unfinished"
    value: float | None = None
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    note: str = ""


def trial_folder(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:04d}"


def save_trial(folder: Path, trial: Trial) -> None:
    target = trial_folder(folder, trial.number)
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / TRIAL_FILE, trial.model_dump_json())


def read_trials(folder: Path, space: Space) -> list[Trial]:
    """The trials of a search by number, 1 the first. Raises `StorageError` where one is damaged or missing."""
    trials = []
    for number, path in enumerate(sorted(folder.glob(f"trials/*/{TRIAL_FILE}")), start=1):
        try:
            trial = Trial.model_validate_json(path.read_text(encoding="utf-8"))
            if path != trial_folder(folder, number) / TRIAL_FILE or trial.number != number:
                raise ValueError(f"expected trial {number} in {trial_folder(folder, number)}")
            if trial.values.keys() != space.keys() or not all(space[k].contains(v) for k, v in trial.values.items()):
                raise ValueError("its values are not of the space")
        except (ValidationError, ValueError) as err:
            raise StorageError(f"{path}: not a trial of this search: {err}; {_anew(folder)}") from None
        trials.append(trial)
    return trials


def open_search(folder: Path, config: Config, space: Space, prepared: PreparedGraph) -> list[Trial]:
    """The trials that exist already. The first call records what is searched.

    Raises `ConfigError` with the fields that differ where the folder holds another search, `StorageError` where it is
    of another version or a record of a trial is damaged.
    """
    path = folder / SEARCH_FILE
    refuse_foreign_text(folder / BEST_FILE, "`dist-gat tune`")
    now: dict[str, Any] = {
        "version": VERSION,
        "config": config.model_dump(mode="json"),
        "space": dump_space(space),
        "data_fingerprint": prepared.fingerprint,
    }
    if not path.exists():
        write_text(path, json.dumps(now))
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        changed = differing_settings(
            saved["config"], now["config"], lambda key, field: resume_rule(field) == FREE and key not in COMPARED
        )  # fmt: skip
        keys = sorted({*saved["space"], *space}) if saved["version"] == VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        keys = None
    if keys is None:
        raise StorageError(f"{path}: not a search of this version; {_anew(folder)}")
    for key in keys:
        before, after = saved["space"].get(key), now["space"].get(key)
        if before != after:
            changed.append(f"{key} in the space: saved {before}, now {after}")
    if saved["data_fingerprint"] != prepared.fingerprint:
        changed.append(f"the data set in {prepared.folder} is another one")
    if changed:
        raise ConfigError(
            f"{folder} belongs to another search: {'; '.join(changed)}. Go on with those, or {_anew(folder)}"
        )
    return read_trials(folder, space)


def _anew(folder: Path) -> str:
    return f"set run=FOLDER for another search, or remove {folder} to start anew"


def share_cores(config: Config, workers: int, concurrent: int | None) -> tuple[Config, int]:
    """The configuration with local workers for a trial, and how many trials run at a time."""
    threads = config.launch.threads_per_worker
    at_a_time = concurrent or min(MAX_CONCURRENT, max(1, cores() // (workers * (threads or 1))))
    threads = threads or max(1, cores() // (workers * at_a_time))
    tree = config.model_dump(mode="json")
    tree["launch"] |= {"launcher": "local", "num_workers": workers, "threads_per_worker": threads, "address": None}
    return parse_config(tree), at_a_time


def trial_tree(config: Config, trial: Trial) -> dict[str, Any]:
    """The tree of a trial's configuration: its values, and a run folder of its own; not checked, because its
    combination of values may be invalid.
    """
    tree = _place(config, trial, f"{trial.number:04d}", trial_folder(Path(TUNE_FOLDER), trial.number))
    tree["train"]["profile"] = 0
    return tree


def best_trial(trials: Sequence[Trial], higher_is_better: bool = True) -> Trial | None:
    """The one with the best value of those that ended well; of equal ones the first."""
    ended = [trial for trial in trials if trial.status in ("finished", "pruned") and trial.value is not None]
    sign = 1 if higher_is_better else -1
    return max(ended, key=lambda trial: sign * (trial.value or 0.0), default=None)


def describe(trial: Trial, num_trials: int, metric: str) -> str:
    """One line on a trial that ended."""
    found = f"{metric} {trial.value:.4f}" if trial.value is not None else "no validation"
    note = f": {trial.note}" if trial.note else ""
    return f"trial {trial.number} of {num_trials}: {found}, {trial.status} after {trial.epochs} epochs{note}"


def write_best(config: Config, trial: Trial) -> Path:
    """Write the recipe of a trial, with the user's own launch section and a run folder of its own."""
    folder = config.run_folder / TUNE_FOLDER
    tree = _place(config, trial, "best", Path(TUNE_FOLDER, "best"))
    write_own_text(folder / BEST_FILE, dump_config(parse_config(tree)))
    return folder / BEST_FILE


def _place(config: Config, trial: Trial, name: str, folder: Path) -> dict[str, Any]:
    tree = configure(config, trial.values)
    tree["name"] = f"{config.name}-{name}"
    place_run(tree, config, folder, f"{TUNE_FOLDER}/{name}")
    return tree
