"""The tables of `evaluate`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dist_gat.base.metric_counts import sample_in_words
from dist_gat.cli.output import make_table
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import (
    AMONG,
    COLD_METRICS,
    RANKING_KINDS,
    RANKING_METRICS,
    TogetherTask,
    task_metrics,
)

ACTIVITY, POPULARITY = "by activity of users (training degree)", "by popularity of {}items (training degree)"
# as many as 80 columns hold; --json has all
MAX_SLICE_METRICS = 3
MAX_COMPARED = 4


def evaluation_tables(settings: Config, result: dict[str, Any], split: str, slices: bool) -> list[Table]:
    """Of the model, and of baselines where there are some; with `slices` those too."""
    if isinstance(settings.task, TogetherTask):
        singles = {name: settings.model_copy(update={"task": task}) for name, task in settings.task.tasks.items()}
        return [
            table
            for name, single in singles.items()
            if split in result["tasks"][name]
            for table in evaluation_tables(
                single.model_copy(update={"name": name}), result["tasks"][name], split, slices
            )
        ]
    if settings.task.kind not in RANKING_KINDS:
        return pair_tables(settings, result, split, slices)
    shown = {name: metrics[split] for name, metrics in result.get("baselines", {}).items()}
    shown[settings.name] = found = result[split]
    names = [f"{name}@{max(settings.evaluate.ks)}" for name in RANKING_METRICS]
    rows = [[model, *[metrics[name] for name in names]] for model, metrics in shown.items()]
    sample = sample_in_words(found)
    users = sample or f", {found['num_users']:,.0f} users"
    title = f"{split}, full ranking over all items{users}"
    tables = [make_table(title, ["model", *names], rows)]
    if some_are_cold(found):
        tables.append(cold_table(shown, split, max(settings.evaluate.ks), sample))
    return tables + slice_tables(result["slices"][split], max(settings.evaluate.ks), sample) if slices else tables


def some_are_cold(metrics: dict[str, float]) -> bool:
    """Whether they are of a split that holds items out."""
    return any(name.startswith(f"{COLD_METRICS[0]}/") for name in metrics)


def cold_table(shown: dict[str, dict[str, float]], split: str, k: int, sample: str) -> Table:
    """Of models, by name, what is measured of cold and warm items apart."""
    rows = []
    for model, metrics in shown.items():
        for name in COLD_METRICS:
            kind, _, among = name.partition(AMONG)
            values = [metrics[f"{name}/{metric}@{k}"] for metric in ("recall", "ndcg")]
            rows.append([model, kind, f"{among or 'all'} items", int(metrics[f"{name}/num_users"]), *values])
    columns = ["model", "interactions with", "ranked among", "users", f"recall@{k}", f"ndcg@{k}"]
    return make_table(f"{split}, cold items and the others{sample}", columns, rows)


def compared_metrics(settings: Config) -> list[str]:
    """What `compare` shows; --json has all."""
    k = max(settings.evaluate.ks)
    if isinstance(settings.task, TogetherTask):
        firsts = {name: next(iter(task_metrics(task, [k]))) for name, task in settings.task.tasks.items()}
        return [f"{name}/{metric}" for name, metric in firsts.items()][:MAX_COMPARED]
    if settings.task.kind == "ranking" and settings.data.split.cold_items:
        return [f"recall@{k}", *(f"{name}/recall@{k}" for name in COLD_METRICS)]
    if settings.task.kind in RANKING_KINDS:
        return [f"{name}@{k}" for name in ("recall", "ndcg", "mrr")]
    return settings.metric_names[:MAX_COMPARED]


def what_is_measured(settings: Config) -> str:
    """In words."""
    others = {**dict.fromkeys(RANKING_KINDS, "full ranking over all items"), "together": "several tasks"}
    return others.get(settings.task.kind, "predictions of pairs")


def slice_tables(slices: dict[str, Any], k: int, sample: str) -> list[Table]:
    """Users by activity, items by popularity, and beyond accuracy, at K = k. sample: of whom, see `sample_in_words`."""
    count = {"num_users": "judged users"}
    beyond = {name: value for name, value in slices["beyond_accuracy"].items() if name.endswith(f"@{k}")}
    return [
        _slice_table(f"{ACTIVITY}{sample}", "users", slices, count, [f"recall@{k}", f"ndcg@{k}", f"hit_rate@{k}"]),
        _slice_table(POPULARITY.format("relevant ") + sample, "items", slices, count, [f"recall@{k}"]),
        make_table(f"beyond accuracy{sample}", ["metric", "value"], [[name, value] for name, value in beyond.items()]),
    ]


def pair_tables(settings: Config, result: dict[str, Any], split: str, slices: bool) -> list[Table]:
    """Metrics of predicted pairs with their standard errors, of clicks precision and recall, and slices."""
    found, spread, details = result[split], result["spread"][split], result["details"][split]
    rows = [[name, value, spread[name]] for name, value in found.items() if name in spread]
    sample = sample_in_words(found)
    title = f"{split}, {found['num_pairs']:,.0f} pairs{sample}"
    tables = [make_table(title, ["metric", "value", "± over users"], rows)]
    if details["kind"] == "classification":
        tables.append(classification_table(details, sample))
    if slices:
        names, count = settings.metric_names[:MAX_SLICE_METRICS], {"num_pairs": "pairs"}
        tables.append(_slice_table(f"{ACTIVITY}{sample}", "users", result["slices"][split], count, names))
        tables.append(_slice_table(POPULARITY.format("") + sample, "items", result["slices"][split], count, names))
    return tables


def classification_table(details: dict[str, Any], sample: str) -> Table:
    """Precision, recall and F1 of each label, and what was predicted as what. sample: of whom."""
    origin = "of best F1 on validation" if details["threshold_from"] == "valid" else "by default"
    scores = ("precision", "recall", "f1-score")
    rows = [
        [label, *[details["report"][label][score] for score in scores], sum(counts), *counts]
        for label, counts in zip(("0", "1"), details["confusion"], strict=True)
    ]
    title = f"1 from {details['threshold']:.4f} on, the threshold {origin}"
    title += f", pairs{sample}" if sample else ""
    return make_table(title, ["label", *scores, "pairs", "predicted 0", "predicted 1"], rows)


def _slice_table(title: str, side: str, slices: dict[str, Any], count: dict[str, str], metrics: list[str]) -> Table:
    """side: `users` or `items`. count: the name of a number of what the metrics are of, and its column."""
    rows = [
        [
            name,
            f"{found['min_degree']} to {found['max_degree']}",
            found["num_nodes"],
            *[int(found[number]) for number in count],
            *[found[metric] for metric in metrics],
        ]
        for name, found in slices[side].items()
        if found["num_nodes"]
    ]
    return make_table(title, [side, "degrees", "nodes", *count.values(), *metrics], rows)
