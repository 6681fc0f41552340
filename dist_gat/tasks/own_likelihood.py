"""`load_likelihood`: a task of a user's own, from a Python file that the recipe names."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError
from dist_gat.config.task_sections import OwnTask
from dist_gat.tasks.likelihood import Likelihood

NEEDED = ("loss", "predict", "metrics", "details", "are_labels", "loss_name", "expected")


def load_likelihood(task: OwnTask, labels: Mapping[str, Any]) -> Likelihood:
    """What the file's `build_likelihood(settings, labels)` returns. The file runs as a program of yours.

    labels: of `PreparedGraph.describe_labels`. Raises `ConfigError` with the file where it can't be run or lacks
    something.
    """
    path = Path(task.file)
    spec = importlib.util.spec_from_file_location(f"dist_gat_own_task_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"task.file={task.file}: expected a Python file, which every worker can read")
    module = importlib.util.module_from_spec(spec)
    # where dataclasses look their own module up
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        build = module.build_likelihood
        likelihood: Likelihood = build(dict(task.settings), dict(labels))
    # whatever a user's code raises
    except Exception as err:
        raise ConfigError(
            f"task.file={task.file}: {type(err).__name__}: {err}; expected a function build_likelihood(settings, "
            "labels), see docs/tasks.md"
        ) from err
    missing = [name for name in NEEDED if not hasattr(likelihood, name)]
    if missing:
        raise ConfigError(f"task.file={task.file}: its likelihood has no {', '.join(missing)}; see docs/tasks.md")
    return likelihood
