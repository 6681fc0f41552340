"""Defaults that depend on other settings, filled into a tree of plain values before it is checked."""

from __future__ import annotations

from typing import Any

from dist_gat.config.task_sections import default_metric


def with_defaults(tree: Any) -> Any:
    """The tree with `data.prepared`, so that recipes don't share a folder unless they say so, and with `train.metric`
    of a task that is none of ranking. What is wrong with a tree is for others to say.
    """
    if not isinstance(tree, dict):
        return tree
    name, data, task, train = (tree.get(key) for key in ("name", "data", "task", "train"))
    filled = dict(tree)
    if isinstance(data, dict) and not data.get("prepared") and isinstance(name, str):
        filled["data"] = {**data, "prepared": f"prepared/{name}"}
    metric = default_metric(task or {})
    if metric and isinstance(train or {}, dict) and "metric" not in (train or {}):
        filled["train"] = {**(train or {}), "metric": metric}
    return filled
