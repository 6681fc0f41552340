"""The report of a run: its curves, results, attention by degree and configuration, from what the run left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.config.files import dump_config
from dist_gat.config.task_sections import RANKING_METRICS
from dist_gat.explain.attention_by_degree import attention_by_degree
from dist_gat.explain.trained_run import RunSource, locate_run, open_trained_run
from dist_gat.pages.chart import Curve, line_chart
from dist_gat.pages.metric_table import metric_tables, read_json
from dist_gat.pages.page import fill_template
from dist_gat.serve.saved_model import model_digest
from dist_gat.train.run_log import read_curves
from dist_gat.workflows.result_files import COMPARISON_FILE, EVALUATION_FILE

CHARTS = {
    "loss": "train/loss",
    "learning rate": "train/learning_rate",
    "gradient norm": "train/gradient_norm",
    "slope of popularity": "model/popularity_slope",
    **{f"validation {metric.replace('_', ' ')}": f"valid/{metric}@" for metric in RANKING_METRICS},
    "share of the step": "share/",
    "seeds per second": "speed/seeds_per_s",
    "entropy of attention in training": "attention/entropy_",
}


def report_page(
    source: RunSource, overrides: Sequence[str] = (), verify: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> str:  # fmt: skip
    """HTML of a run. Only its configuration and event files must be there; the page says what else is missing.

    With `verify` the saved model must be there and whole. Raises `StorageError`, `ConfigError`.
    """
    config, folder = locate_run(source, overrides)
    curves = read_curves(folder)
    evaluation = read_json(folder / EVALUATION_FILE, "dist-gat evaluate")
    attention, missing = attention_chart(source, overrides, verify, progress)
    return fill_template(
        "report.html",
        name=config.name,
        steps=max(step for curve in curves.values() for step, _ in curve),
        charts=[(title, line_chart(chosen)) for title, prefix in CHARTS.items() if (chosen := select(curves, prefix))],
        evaluation=metric_tables(evaluation),
        is_outdated=is_outdated(evaluation, folder),
        comparison=metric_tables(read_json(folder / COMPARISON_FILE, "dist-gat compare")),
        attention=attention,
        missing=missing,
        config=dump_config(config),
    )


def select(curves: dict[str, list[tuple[int, float]]], prefix: str) -> dict[str, Curve]:
    """The curves whose tags start with a prefix, by what follows the prefix's last `/`."""
    cut = prefix.rindex("/") + 1
    return {tag[cut:]: curve for tag, curve in curves.items() if tag.startswith(prefix)}


def attention_chart(
    source: RunSource, overrides: Sequence[str], verify: bool, progress: Callable[[str], None]
) -> tuple[Any, str]:
    """The chart of attention by degree, or None and why there is none."""
    try:
        run = open_trained_run(source, overrides, verify, progress)
        progress("attention by degree")
        rows = attention_by_degree(run)
    except (ConfigError, StorageError) as err:
        if verify and isinstance(err, StorageError):
            raise
        return None, str(err)
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        curves.setdefault(f"layer {row['layer']}", []).append((row["first_degree"].bit_length(), row["entropy"]))
    labels = {row["first_degree"].bit_length(): f"{row['first_degree']}–{row['last_degree']}" for row in rows}
    return {"chart": line_chart(curves, labels), "rows": rows}, ""


def is_outdated(evaluation: Any, folder: Path) -> bool:
    """Whether the stored evaluation is of another model than the one in the run folder."""
    return isinstance(evaluation, dict) and evaluation.get("model_sha256") != model_digest(folder)
