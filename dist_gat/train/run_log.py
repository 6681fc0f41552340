"""What a run tells about itself: TensorBoard scalars by global step, and one JSON line an event for the driver.

Rank 0 alone writes; `read_curves` reads the scalars back. The only module that imports TensorBoard.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from dist_gat.base.errors import StorageError

PROGRESS_FILE = "progress.jsonl"
EVENTS_FOLDER = "tensorboard"


class RunLog:
    """Writes to `run_folder/tensorboard` and `run_folder/progress.jsonl`; does nothing on ranks other than 0."""

    def __init__(self, run_folder: Path, rank: int, step: int) -> None:
        """step: where the run starts; what an earlier attempt logged of later steps no longer counts."""
        self.writer = SummaryWriter(str(run_folder / EVENTS_FOLDER), purge_step=step + 1) if rank == 0 else None
        self.file = open_lines(run_folder / PROGRESS_FILE) if rank == 0 else None
        self.started = time.perf_counter()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """TensorBoard scalars at a global step."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def event(self, kind: str, **values: Any) -> None:
        """One line of progress for whoever watches the run."""
        if self.file is not None:
            seconds = round(time.perf_counter() - self.started, 3)
            self.file.write(json.dumps({"event": kind, "seconds": seconds, **values}) + "\n")
            self.file.flush()

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
        if self.writer is not None and self.file is not None:
            self.writer.close()
            self.file.close()


def read_curves(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of a run as (global step, value), without points that a resumed attempt replaced.

    Raises `StorageError` where the run has no event files.
    """
    folder = run_folder / EVENTS_FOLDER
    if not any(folder.glob("events.out.tfevents.*")):
        raise StorageError(f"{folder}: no TensorBoard event files; expected the folder of a run, see `dist-gat train`")
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}


def log_evaluation(run_folder: Path, result: dict[str, Any]) -> None:
    """Metrics of the saved model and of its slices as scalars, the run `evaluate` beside the curves of training."""
    with SummaryWriter(str(run_folder / "tensorboard" / "evaluate")) as writer:
        for name, value in flatten({key: value for key, value in result.items() if key != "details"}).items():
            writer.add_scalar(name.replace(".", "/"), value, 0)


def open_lines(path: Path) -> TextIO:
    """Open a file of lines to add some; ends a line that a killed process left unfinished."""
    file = path.open("a+", encoding="utf-8")
    if file.tell():
        file.seek(file.tell() - 1)
        if file.read(1) != "\n":
            file.write("\n")
    return file


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
