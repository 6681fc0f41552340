"""The files in which a run folder keeps results, beside what training writes."""

from __future__ import annotations

import json
from pathlib import Path

from dist_gat.base.errors import ConfigError

EVALUATION_FILE, COMPARISON_FILE = "evaluation.json", "compare.json"
# a key that each of them has
KEYS = {EVALUATION_FILE: "model_sha256", COMPARISON_FILE: "models"}
VERBS = {EVALUATION_FILE: "evaluate", COMPARISON_FILE: "compare"}


def refuse_foreign_results(folder: Path, *names: str) -> None:
    """Raise `ConfigError` where one of these files is there and is none that `evaluate` or `compare` wrote."""
    for path in (folder / name for name in names):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or KEYS[path.name] not in found:
            raise ConfigError(
                f"run: {path}: not written by `dist-gat {VERBS[path.name]}`, and would be replaced; set "
                "run=FOLDER to another folder, or move this away"
            )
