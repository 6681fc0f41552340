"""The report of a run, for people: is it good, is it still learning, for whom is it bad, and what did it cost.

From what the run left behind. What is missing is said, or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.plural import plural
from dist_gat.config.files import dump_config
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import RANKING_METRICS, TogetherTask, task_metrics
from dist_gat.explain.attention_by_degree import attention_by_degree
from dist_gat.explain.trained_run import RunSource, locate_run, open_trained_run
from dist_gat.graph.made_from import open_made
from dist_gat.nn.learned_terms import learned_curves
from dist_gat.pages.chart import Curve, line_chart
from dist_gat.pages.cost_section import cost_section
from dist_gat.pages.details_section import details_section
from dist_gat.pages.learned_section import learned_charts
from dist_gat.pages.learning_section import learning_section
from dist_gat.pages.page import fill_template
from dist_gat.pages.quality_section import is_higher_better, quality_section
from dist_gat.pages.run_files import branch, number_in, read_events, read_json, text_in
from dist_gat.pages.slices_section import slices_section
from dist_gat.pages.wording import SPLITS, TASKS, metric_title
from dist_gat.privacy.ledger import LEDGER_FILE, read_entries, summary_of
from dist_gat.serve.saved_model import model_digest
from dist_gat.tasks.build_task import predicted_relation
from dist_gat.train.run_log import read_curves
from dist_gat.workflows.result_files import COMPARISON_FILE, EVALUATION_FILE

OTHER_CHARTS = {
    "Learning rate": "train/learning_rate",
    "Gradient norm": "train/gradient_norm",
    "Slope of popularity": "model/popularity_slope",
    **{f"Validation: {metric_title(metric)}": f"valid/{metric}@" for metric in RANKING_METRICS},
    "Share of the step": "share/",
    "Training pairs a second": "speed/seeds_per_s",
    "Entropy of attention in training": "attention/entropy_",
}
MAX_TICKS = 5


def report_page(
    source: RunSource, overrides: Sequence[str] = (), verify: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> str:  # fmt: skip
    """HTML of a run. Only its configuration and event files must be there; the page says what else is missing.

    With `verify` the saved model must be there and whole. Raises `StorageError`, `ConfigError`.
    """
    config, folder = locate_run(source, overrides)
    curves: dict[str, Curve] = dict(read_curves(folder))
    events = read_events(folder)
    evaluation = read_json(folder / EVALUATION_FILE, "dist-gat evaluate")
    comparison = read_json(folder / COMPARISON_FILE, "dist-gat compare")
    attention, missing = attention_charts(source, overrides, verify, progress)
    split = "test" if branch(evaluation, "test") else "valid"
    metric = config.train.metric
    higher = is_higher_better(config, metric)
    data = data_rows(config)
    starts = [event for event in events if event.get("event") == "start"]
    per_epoch = number_in(starts[-1], "steps_per_epoch") if starts else None
    steps = max(step for curve in curves.values() for step, _ in curve)
    return fill_template(
        "report.html",
        name=config.name,
        does=TASKS.get(config.task.kind, ""),
        steps=steps,
        epochs=steps / per_epoch if per_epoch else None,
        quality=quality_section(config, evaluation, comparison, curves),
        splits=[SPLITS[name] for name in ("test", "valid") if branch(evaluation, name)],
        is_evaluated=bool(evaluation),
        is_outdated=is_outdated(evaluation, folder),
        learning=learning_section(curves, metric, higher, per_epoch),
        parts=[
            {
                "name": name,
                "slices": slices_section(found, split, own, is_higher_better(config, metric_name)),
                "details": details_section(branch(found, "details", split)),
            }
            for name, found, metric_name, own in parts_of(config, evaluation)
        ],
        cost=cost_section(curves, events, comparison),
        attention=attention,
        missing=missing,
        other_charts=[
            (title, line_chart(chosen, x_name="step"))
            for title, prefix in OTHER_CHARTS.items()
            if (chosen := select(curves, prefix))
        ],
        is_all_for_training={("Pairs of valid", "0"), ("Pairs of test", "0")} <= {*data},
        made_of=data + privacy_rows(folder) + version_rows(starts[-1] if starts else {}),
        config=dump_config(config),
    )


def parts_of(config: Config, evaluation: Any) -> list[tuple[str, Any, str, str]]:
    """Of each of several tasks its name, its part of the evaluation, and the metric that its slices are shown by, with
    and without its name; of a single task the same, without a name."""
    metric = config.train.metric
    if not isinstance(config.task, TogetherTask):
        return [("", evaluation, metric, metric)]
    parts = []
    for name, task in config.task.tasks.items():
        of_task = [f"{name}/{own}" for own in task_metrics(task, config.evaluate.ks)]
        shown = metric if metric in of_task else of_task[0]
        parts.append((name, branch(evaluation, "tasks", name), shown, shown.partition("/")[2]))
    return parts


def select(curves: dict[str, Curve], prefix: str) -> dict[str, Curve]:
    """The curves whose tags start with a prefix, by what follows the prefix's last `/`."""
    cut = prefix.rindex("/") + 1
    return {tag[cut:].replace("_", " "): curve for tag, curve in curves.items() if tag.startswith(prefix)}


def attention_charts(
    source: RunSource, overrides: Sequence[str], verify: bool, progress: Callable[[str], None]
) -> tuple[Any, str]:
    """The chart of attention by degree and those of what it learned of edges, or None and why there are none."""
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
    places = sorted(labels)
    shown = {place: labels[place] for place in places[:: -(-len(places) // MAX_TICKS) or 1]}
    return {
        "chart": line_chart(curves, shown, "neighbours", "entropy"),
        "rows": rows,
        "learned": learned_charts(learned_curves(run.model.encoder)),
    }, ""


def is_outdated(evaluation: Any, folder: Path) -> bool:
    """Whether the stored evaluation is of another model than the one in the run folder."""
    return isinstance(evaluation, dict) and evaluation.get("model_sha256") != model_digest(folder)


def data_rows(config: Config) -> list[tuple[str, str]]:
    """Names and texts of the data set, where it is still there."""
    rows = [("Recipe", config.name), ("Data", config.data.path), ("Seed", str(config.seed))]
    try:
        prepared = open_made(config, has_model=True)
    except (ConfigError, StorageError):
        return rows
    relation = predicted_relation(prepared.schema, config.task)
    counts = {plural(kind).capitalize(): prepared.ranges.count(kind) for kind in prepared.schema.node_types}
    counts |= {f"Pairs of {split}": prepared.num_pairs(relation, split) for split in ("train", "valid", "test")}
    return rows + [(name, f"{count:,}") for name, count in counts.items()]


NOISES = {
    "counts_noise": "Noise multiplier of counts", "pairs_noise": "Noise multiplier of pairs",
    "noise_multiplier": "Noise multiplier of steps",
}  # fmt: skip


def privacy_rows(folder: Path) -> list[tuple[str, str]]:
    """What private runs in a folder have spent."""
    entries = read_entries(folder / LEDGER_FILE)
    if not entries:
        return []
    told = summary_of(entries)
    return [
        ("Privacy promised", f"ε = {told['epsilon']:g} of each user, δ = {told['delta']:.2e}"),
        (
            "Privacy spent",
            f"ε = {told['epsilon_spent']:.3f} in {told['runs']} {'run' if told['runs'] == 1 else 'runs'}",
        ),
        *[(name, f"{told[key]:.3f}") for key, name in NOISES.items() if told[key]],
    ]


def version_rows(start: dict[str, Any]) -> list[tuple[str, str]]:
    """The versions that the run was started with."""
    found = branch(start, "versions")
    return [(f"Version of {name}", text_in(found, name)) for name in found if text_in(found, name)]
