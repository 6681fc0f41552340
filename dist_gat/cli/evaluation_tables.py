"""The tables of `evaluate`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dist_gat.cli.output import make_table
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import RANKING_METRICS


def evaluation_tables(settings: Config, result: dict[str, Any], split: str, slices: bool) -> list[Table]:
    """Of the model, and of baselines where there are some; with `slices` those of a ranking."""
    found = result[split]
    if settings.task.kind != "ranking":
        rows = [[name, value] for name, value in found.items() if name != "num_pairs"]
        return [make_table(f"{split}, {found['num_pairs']:,.0f} pairs", ["metric", "value"], rows)]
    shown = {name: metrics[split] for name, metrics in result.get("baselines", {}).items()}
    shown[settings.name] = found
    names = [f"{name}@{max(settings.evaluate.ks)}" for name in RANKING_METRICS]
    rows = [[model, *[metrics[name] for name in names]] for model, metrics in shown.items()]
    title = f"{split}, full ranking over all items, {found['num_users']:,.0f} users"
    tables = [make_table(title, ["model", *names], rows)]
    return tables + slice_tables(result["slices"][split], max(settings.evaluate.ks)) if slices else tables


def slice_tables(slices: dict[str, Any], k: int) -> list[Table]:
    """Users by activity, items by popularity, and beyond accuracy, at K = k."""
    columns = ["degrees", "nodes", "judged users"]
    user_metrics, item_metrics = [f"recall@{k}", f"ndcg@{k}", f"hit_rate@{k}"], [f"recall@{k}"]
    beyond = {name: value for name, value in slices["beyond_accuracy"].items() if name.endswith(f"@{k}")}
    return [
        make_table(
            "by activity of users (training degree)",
            ["users", *columns, *user_metrics],
            _rows(slices["users"], user_metrics),
        ),
        make_table(
            "by popularity of relevant items (training degree)",
            ["items", *columns, *item_metrics],
            _rows(slices["items"], item_metrics),
        ),
        make_table("beyond accuracy", ["metric", "value"], [[name, value] for name, value in beyond.items()]),
    ]


def _rows(slices: dict[str, dict[str, Any]], metrics: list[str]) -> list[list[Any]]:
    return [
        [
            name,
            f"{found['min_degree']} to {found['max_degree']}",
            found["num_nodes"],
            int(found["num_users"]),
            *[found[metric] for metric in metrics],
        ]
        for name, found in slices.items()
        if found["num_nodes"]
    ]
