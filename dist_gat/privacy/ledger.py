"""What the runs of a folder have spent, and the secret of the present one.

privacy.json  of each run in this folder, in order: its plan, and how many steps were saved. A run that begins anew adds
              one, because users are asked once more.
privacy.key   the secret of the newest run, 32 bytes as hex, readable by its owner alone. All draws and all noise come
              from it, so that a resumed run repeats what it did, and spends nothing twice. It is in no checkpoint and
              no model. Whoever has it and a checkpoint can take the noise out.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.secret_file import SECRET_BYTES, read_secret, write_secret
from dist_gat.base.storage import write_text
from dist_gat.privacy.accountant import PrivacyPlan, Spending, spent, spent_rdp

LEDGER_FILE, KEY_FILE = "privacy.json", "privacy.key"
KEY_REMEDY = (
    "without it the run can't repeat its noise; restore the file, or begin anew with checkpoint.resume=restart, which "
    "is counted as one run more"
)


@dataclass(frozen=True)
class Entry:
    """A run: its plan, and the steps that its checkpoints have."""

    plan: PrivacyPlan
    steps: int = 0

    @property
    def spending(self) -> Spending:
        return self.plan.after(self.steps)


@dataclass(frozen=True)
class Ledger:
    """entries: of all runs in the folder, the present one last. secret: of this one, never written anywhere else."""

    folder: Path
    entries: tuple[Entry, ...]
    secret: bytes

    @property
    def plan(self) -> PrivacyPlan:
        return self.entries[-1].plan

    def saved(self, step: int) -> Ledger:
        """With so many steps of the present run, which a checkpoint has. What was counted once stays."""
        own = self.entries[-1]
        return replace(self, entries=(*self.entries[:-1], replace(own, steps=max(own.steps, step))))

    def write(self) -> None:
        runs = [{"plan": entry.plan.to_plain(), "steps": entry.steps} for entry in self.entries]
        write_text(self.folder / LEDGER_FILE, json.dumps({"runs": runs}, indent=1) + "\n")

    def summary(self) -> dict[str, Any]:
        return summary_of(self.entries)


def summary_of(entries: Sequence[Entry]) -> dict[str, Any]:
    """What is told of the budget, in manifest, log and report: the plan of the last run, and what all runs of the
    folder have spent."""
    plan, spendings = entries[-1].plan, [entry.spending for entry in entries]
    return {
        "unit": "user, added or removed",
        **plan.to_plain(),
        "steps_done": entries[-1].steps,
        "runs": len(entries),
        "epsilon_spent": spent(spendings, plan.delta),
        "rdp_epsilon_spent": spent_rdp(spendings, plan.delta),
    }


def open_ledger(folder: Path, resumes: bool, plan: Callable[[], PrivacyPlan]) -> Ledger:
    """The ledger of a run that begins, or goes on from a checkpoint. Call it on one rank.

    plan: makes that of a run that begins. Raises `StorageError` where a run can't go on without its secret, and
    `ConfigError` where it would take other steps than those that its noise was found for.
    """
    path = folder / LEDGER_FILE
    entries = read_entries(path)
    if resumes:
        if not entries:
            raise StorageError(f"{path}: a private run has one; begin anew with checkpoint.resume=restart")
        return Ledger(folder, entries, read_secret(folder / KEY_FILE, KEY_REMEDY))
    # a run that saved nothing has shown nothing; one that begins with noised sums is counted from its beginning
    entries = (*(entry for entry in entries if not entry.spending.is_nothing), Entry(plan()))
    folder.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_bytes(SECRET_BYTES)
    write_secret(folder / KEY_FILE, secret)
    ledger = Ledger(folder, entries, secret)
    ledger.write()
    return ledger


def check_steps(plan: PrivacyPlan, steps: int) -> None:
    """Raise `ConfigError` where a run that goes on would take other steps than planned."""
    if plan.steps != steps:
        raise ConfigError(
            f"privacy: this run has noise for {plan.steps} steps, and the recipe asks for {steps}; use the epochs that "
            "it began with, or run=FOLDER for another run"
        )


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Of all runs in a folder; () where there was none. Raises `StorageError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except OSError as err:
        raise StorageError(f"{path}: can't be read: {err}") from None
    try:
        return tuple(Entry(PrivacyPlan(**run["plan"]), int(run["steps"])) for run in json.loads(text)["runs"])
    except (ValueError, TypeError, KeyError):
        raise StorageError(
            f"{path}: expected what private runs of this folder have spent; restore the file, or count their ε by hand "
            "and set run=FOLDER to another folder"
        ) from None
