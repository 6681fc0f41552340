"""What a run tells about itself: TensorBoard summaries by global step, and events for whoever watches.

Rank 0 alone writes; `read_curves` reads the scalars back. The only module that imports TensorBoard.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from dist_gat.base.errors import StorageError
from dist_gat.train.event_log import EventLog

EVENTS_FOLDER, EVENTS_FILES = "tensorboard", "events.out.tfevents.*"


class RunLog(EventLog):
    """Writes to `run_folder/tensorboard` too; does nothing on ranks other than 0."""

    def __init__(self, run_folder: Path, rank: int, step: int) -> None:
        """step: where the run starts; what an earlier attempt logged of later steps no longer counts."""
        self.writer = SummaryWriter(str(run_folder / EVENTS_FOLDER), purge_step=step + 1) if rank == 0 else None
        super().__init__(run_folder, rank)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """TensorBoard scalars at a global step."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def curve(self, step: int, tag: str, x: np.ndarray, heights: np.ndarray) -> None:
        """A curve over ascending, evenly spaced x, as a histogram of these heights: TensorBoard shows how it moved."""
        if self.writer is not None:
            counts, half = np.nan_to_num(heights), (x[1] - x[0]) / 2
            total, squares = float((counts * x).sum()), float((counts * x**2).sum())
            self.writer.add_histogram_raw(
                tag, float(x[0]), float(x[-1]), float(counts.sum()), total, squares,
                bucket_limits=(x + half).tolist(), bucket_counts=counts.tolist(), global_step=step,
            )  # fmt: skip

    def hyper_parameters(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """The flattened configuration beside the final metrics, for TensorBoard's HParams page."""
        if self.writer is not None:
            named = {f"hparam/{name}": value for name, value in metrics.items()}
            self.writer.add_hparams(flatten(config), named, run_name=".")

    def flush(self) -> None:
        """Hand all that was logged to the system, so that the log has every step that a checkpoint counts as done."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        super().close()


def read_curves(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of a run as (global step, value), without points that a resumed attempt replaced.

    Raises `StorageError` where the run has no event files.
    """
    folder = run_folder / EVENTS_FOLDER
    if not any(folder.glob(EVENTS_FILES)):
        raise StorageError(f"{folder}: no TensorBoard event files; expected the folder of a run, see `dist-gat train`")
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}


def log_evaluation(run_folder: Path, result: dict[str, Any]) -> None:
    """The evaluation of the saved model, as the run `evaluate` beside the curves of training.

    Metrics, those of slices and standard errors are scalars, without those that are undefined. Details of predicted
    pairs give histograms of predictions or residuals and, of clicks, the curve of precision and recall.
    """
    with SummaryWriter(str(run_folder / EVENTS_FOLDER / "evaluate")) as writer:
        log_result(writer, {key: value for key, value in result.items() if key != "tasks"}, "")
        for name, of_task in result.get("tasks", {}).items():
            log_result(writer, of_task, f"{name}/")


def log_result(writer: SummaryWriter, result: dict[str, Any], prefix: str) -> None:
    """Of one task."""
    for name, value in flatten({key: value for key, value in result.items() if key != "details"}).items():
        if isinstance(value, int | float) and math.isfinite(value):
            writer.add_scalar(prefix + name.replace(".", "/"), value, 0)
    for split, details in result.get("details", {}).items():
        for name, counted in details.get("histograms", {}).items():
            log_histogram(writer, f"{prefix}{details['kind']}/{split}/{name}", counted)
        if details.get("kind") == "classification":
            log_precision_recall(writer, f"{prefix}precision_recall/{split}", details["histograms"])


def log_histogram(writer: SummaryWriter, tag: str, counted: dict[str, Any]) -> None:
    """counted: of `dist_gat.evaluate.histogram`. Nothing is logged of no values."""
    if not counted["num"]:
        return
    mean, num = counted["mean"], counted["num"]
    edges = np.linspace(counted["low"], counted["high"], len(counted["counts"]) + 1)
    writer.add_histogram_raw(
        tag, counted["min"], counted["max"], num, mean * num, (counted["std"] ** 2 + mean**2) * num,
        bucket_limits=[*edges.tolist(), max(counted["max"], float(edges[-1]))],
        bucket_counts=[counted["below"], *counted["counts"], counted["above"]], global_step=0,
    )  # fmt: skip


def log_precision_recall(writer: SummaryWriter, tag: str, histograms: dict[str, Any]) -> None:
    """From the histograms of predictions by label, whose edges are the evenly spaced thresholds that TensorBoard shows.

    At the threshold 1, the last, nothing counts as 1.
    """
    false, true = (np.append(np.cumsum(histograms[label]["counts"][::-1])[::-1], 0) for label in ("0", "1"))
    precision = true / np.maximum(true + false, 1)
    recall = true / max(int(true[0]), 1)
    writer.add_pr_curve_raw(
        tag, true, false, false[0] - false, true[0] - true, precision, recall, global_step=0, num_thresholds=len(true)
    )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Dotted keys and plain values: what TensorBoard accepts."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        elif value is not None:
            flat[prefix + key] = json.dumps(value)
    return flat
