"""Is the model good? One number with its spread, beside those of other models; and all its metrics."""

from __future__ import annotations

from typing import Any

from dist_gat.base.metric_counts import ALL_USERS, is_count
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import task_metrics
from dist_gat.pages.bar_chart import Bar, bar_chart
from dist_gat.pages.chart import Curve
from dist_gat.pages.figures import three_digits
from dist_gat.pages.run_files import branch, number_in, text_in
from dist_gat.pages.wording import CHANCE, MODELS, SPLITS, metric_meaning, metric_title

OWN = "recipe"  # the run's own row of a comparison
NUM_ERRORS = 2.0  # standard errors within which two models are about as good


def quality_section(
    config: Config, evaluation: Any, comparison: Any, curves: dict[str, Curve]
) -> dict[str, Any]:  # fmt: skip
    """What the template shows: `headline`, `verdict`, `bars`, `rows`, all metrics by split, and what is not there."""
    split = next((split for split in ("test", "valid") if branch(evaluation, split)), "")
    metric = config.train.metric
    found = branch(evaluation, split)
    if split and number_in(found, metric) is None:
        metric = next((name for name in found if number_in(found, name) is not None and "@" in name), metric)
    value, spread = number_in(found, metric), number_in(evaluation, "spread", split, metric)
    higher = is_higher_better(config, metric)
    validated = [y for _, y in curves.get(f"valid/{metric}", [])]
    others = other_models(evaluation, comparison, split or text_in(comparison, "split"), metric)
    own = value if value is not None else number_in(comparison, "models", OWN, "metrics", metric)
    return {
        "title": metric_title(metric),
        "meaning": metric_meaning(metric),
        "direction": "higher is better" if higher else "lower is better",
        "value": value,
        "spread": spread,
        "on": SPLITS.get(split, split),
        "of": count_of(found, metric),
        "sampled": sampled_users(evaluation, comparison, curves),
        "validated": (max if higher else min)(validated) if validated else None,
        "verdict": verdict(own, spread or 0.0, others, higher),
        "bars": _bars(config.name, metric, own, spread or 0.0, others, higher) if others else None,
        "rows": metric_rows(evaluation),
        "notes": {
            MODELS.get(name, name): text_in(comparison, "models", name, "note")
            for name in branch(comparison, "models")
            if name != OWN and text_in(comparison, "models", name, "note")
        },
    }


def is_higher_better(config: Config, metric: str) -> bool:
    return task_metrics(config.task, config.evaluate.ks, True).get(metric, True)


def count_of(metrics: dict[str, Any], metric: str) -> str:
    """What a metric is of, for people."""
    task, slash, _ = metric.rpartition("/")
    found = []
    all_users = number_in(metrics, f"{task}{slash}{ALL_USERS}")
    users = "users" if all_users is None else f"users, a sample of {all_users:,.0f},"
    for key, name in (("num_pairs", "pairs"), ("num_users", users)):
        if (count := number_in(metrics, f"{task}{slash}{key}")) is not None:
            found.append(f"{count:,.0f} {name}")
    return " of ".join(found)


def sampled_users(evaluation: Any, comparison: Any, curves: dict[str, Curve]) -> list[str]:
    """What is of a sample of the users, for people."""
    measured = {SPLITS[split]: branch(evaluation, split) for split in ("test", "valid")}
    compared = branch(comparison, "models")
    measured |= {f"comparison, {name}": branch(compared, name, "metrics") for name in compared}
    measured["training"] = {tag.removeprefix("valid/"): 0 for tag in curves if tag.startswith("valid/")}
    return [what for what, found in measured.items() if any(name.rpartition("/")[2] == ALL_USERS for name in found)]


def other_models(evaluation: Any, comparison: Any, split: str, metric: str) -> dict[str, float]:
    """The metric of every other model on the split, by its name for people."""
    found = {name: number_in(evaluation, "baselines", name, split, metric) for name in branch(evaluation, "baselines")}
    if text_in(comparison, "split") == split:
        found |= {
            name: number_in(comparison, "models", name, "metrics", metric) for name in branch(comparison, "models")
        }
    return {MODELS.get(name, name): value for name, value in found.items() if value is not None and name != OWN}


def verdict(own: float | None, spread: float, others: dict[str, float], higher: bool) -> str:
    """Whether the model is better than the best of the others, in a sentence."""
    if own is None or not others:
        return ""
    best = (max if higher else min)(others, key=lambda name: others[name])
    gain = own - others[best] if higher else others[best] - own
    beside = f"{best}, the best of the other models, has {three_digits(others[best])}"
    if abs(gain) <= NUM_ERRORS * spread:
        return f"About as good as others: {beside}, which is within two standard errors."
    return f"Better than all others: {beside}." if gain > 0 else f"Not the best: {beside}."


def _bars(
    name: str, metric: str, own: float | None, spread: float, others: dict[str, float], higher: bool
) -> Any:  # fmt: skip
    bars = [Bar(label, value) for label, value in others.items()]
    if own is not None:
        bars.append(Bar(name, own, "this run", spread, "own"))
    bars.sort(key=lambda bar: bar.value or 0.0, reverse=higher)
    origin = CHANCE.get(metric, 0.0)
    return bar_chart(bars, f"{metric_title(metric)} of this run and of others", origin)


def metric_rows(evaluation: Any) -> list[dict[str, Any]]:
    """One a metric: its names, its value and standard error on each split."""
    splits = [split for split in ("test", "valid") if branch(evaluation, split)]
    names = list(dict.fromkeys(name for split in splits for name in branch(evaluation, split)))
    return [
        {
            "title": metric_title(name),
            "meaning": metric_meaning(name),
            "values": [
                (number_in(evaluation, split, name), number_in(evaluation, "spread", split, name)) for split in splits
            ],
        }
        for name in names
        if not is_count(name)
    ]
