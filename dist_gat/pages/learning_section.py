"""Is it still learning? Loss and validation by epoch, the best one marked."""

from __future__ import annotations

from typing import Any

from dist_gat.pages.chart import Curve, line_chart
from dist_gat.pages.figures import three_digits
from dist_gat.pages.wording import metric_title

Curves = dict[str, Curve]


def learning_section(curves: Curves, metric: str, higher: bool, steps_per_epoch: float | None) -> dict[str, Any]:
    """`verdict`, and `charts`, pairs of a title and a picture. Curves by TensorBoard tag, over global steps."""
    x_name, scale = ("epoch", steps_per_epoch) if steps_per_epoch else ("step", 1.0)

    def by_epoch(curve: Curve) -> Curve:
        return [(step / scale, value) for step, value in curve]

    validation = by_epoch(curves.get(f"valid/{metric}", []))
    best = (max if higher else min)(validation, key=lambda point: point[1]) if validation else None
    charts = []
    if validation and best:
        mark = (best[0], f"best: {x_name} {three_digits(best[0])}")
        title = f"Validation: {metric_title(metric)}"
        charts.append((title, line_chart({title: validation}, x_name=x_name, mark=mark)))
    losses = {"loss": by_epoch(curves["train/loss"])} if "train/loss" in curves else {}
    terms = {tag.removeprefix("train/loss_"): curve for tag, curve in curves.items() if tag.startswith("train/loss_")}
    if len(terms) > 1:
        losses |= {tag.replace("_", " "): by_epoch(curve) for tag, curve in terms.items()}
    if losses:
        charts.append(("Training: loss", line_chart(losses, x_name=x_name)))
    return {"verdict": verdict(validation, best, x_name), "charts": charts}


def verdict(validation: Curve, best: tuple[float, float] | None, x_name: str) -> str:
    if best is None:
        return "There was no validation, so nobody can tell."
    since = sum(x > best[0] for x, _ in validation)
    if len(validation) == 1:
        return "There was one validation only, so nobody can tell."
    if not since:
        return "The last validation was the best one, so it may still be learning: more epochs may help."
    times = "validation was" if since == 1 else f"{since} validations were"
    return f"No: it was best at {x_name} {three_digits(best[0])}, and the last {times} no better."
