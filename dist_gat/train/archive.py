"""`Archive`: the checkpoints of a run, `checkpoints/step-00000120`, by step.

A folder without its final name is no checkpoint: the name comes last, in one rename.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dist_gat.storage import MANIFEST, remove_folder

DAMAGED = "damaged-"


@dataclass(frozen=True)
class Archive:
    root: Path

    def folder(self, step: int) -> Path:
        return self.root / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, the newest first."""
        found = [path.name.removeprefix("step-") for path in self.root.glob("step-*") if (path / MANIFEST).is_file()]
        return sorted((int(step) for step in found if step.isdigit()), reverse=True)

    def prune(self, keep: int, best: int | None) -> None:
        """Delete all but the newest `keep` and the best."""
        for step in self.steps()[keep:]:
            if step != best:
                remove_folder(self.folder(step))

    def set_aside(self, step: int) -> None:
        """Rename a damaged checkpoint, so that it is no longer one but can still be looked at."""
        target = self.root / f"{DAMAGED}{self.folder(step).name}"
        shutil.rmtree(target, ignore_errors=True)
        self.folder(step).rename(target)

    def sweep(self) -> None:
        """Delete what a killed run left half written."""
        for path in self.root.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
