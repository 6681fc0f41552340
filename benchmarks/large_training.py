"""Training at 10 M and at 200 M interactions: `python -m benchmarks.large_training [--folder FOLDER] [--keep]`.

2.5 M users × 500 k items in 4 parts, rows of 64 numbers, one worker: the command `train`, which gets SIGTERM after some
steps; with `--validate` it goes on through a validation of 10,000 sampled users to the saved model. Of each size:
seconds until the first step is done, seeds a second, and the memory of all processes of the run, beyond the embedding
rows and their two moments. Memory is what the processes have of their own, anonymous and shared between them
(`Pss_Anon` and `Pss_Shmem` in /proc): pages of the parts' files, which the system takes back when it wants to, are
shown beside it. It is shown by phase, since validation holds representations of all nodes. With `--cold` the pages of
the graph's files are given back first, so that the run reads them from the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness import memory_of, new_parser
from benchmarks.large_graph import TABLE, write_large_graph
from dist_gat.cli.output import STOPPED
from dist_gat.launcher.progress import EventTail
from dist_gat.train.event_log import PROGRESS_FILE

NUM_USERS, NUM_ITEMS, SIZE, NUM_PARTS = 2_500_000, 500_000, 64, 4
SIZES = (10_000_000, 200_000_000)
STEPS, WARM_UP, MEASURED_USERS = 120, 40, 10_000
LOOK_EVERY_S = 0.1
FIRST_STEP_BAR_S, SPEED_BAR, MEMORY_BAR = 30.0, 0.7, 2e9
PHASES = ("start", "train", "after")


@dataclass
class Run:
    """Peaks in bytes, by phase: of the processes' own memory, and of the pages of files that they have mapped."""

    interactions: int
    first_step_s: float = 0.0
    stopped_s: float = 0.0
    seeds_per_s: float = 0.0
    edges_per_s: float = 0.0
    own: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


def train(prepared: Path, folder: Path, interactions: int, validates: bool) -> Run:
    """Run `train` in a process of its own, and watch it."""
    settings = {
        "name": "large", "run": str(folder), "data.prepared": str(prepared), "data.interactions": TABLE,
        "parts.num_parts": NUM_PARTS, "model.embedding_size": SIZE, "train.log_every": 1,
        "train.max_steps": STEPS if validates else 10 * STEPS,
        "evaluate.num_users": MEASURED_USERS, "launch.launcher": "local", "launch.num_workers": 1,
    }  # fmt: skip
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(f"name: large\ndata: {{interactions: {TABLE}}}\n")
    words = [f"{key}={value}" for key, value in settings.items()]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "dist_gat.cli.main", "train", str(recipe), *words])
    tail, run, phase = EventTail(folder / PROGRESS_FILE), Run(interactions), PHASES[0]
    speeds: list[tuple[float, float]] = []
    while process.poll() is None:
        time.sleep(LOOK_EVERY_S)
        for event in tail.read():
            if event["event"] == "step":
                run.first_step_s = run.first_step_s or time.monotonic() - started
                phase = PHASES[1] if event["step"] < STEPS else PHASES[2]
                speeds.append((event["seeds_per_s"], event["edges_per_s"]))
                if event["step"] == STEPS and not validates:
                    asked = time.monotonic()
                    process.terminate()
        for kind, found in (("own", ("Pss_Anon", "Pss_Shmem")), ("files", ("Pss_File",))):
            peaks = getattr(run, kind)
            peaks[phase] = max(peaks.get(phase, 0), memory_of(process.pid, found))
    assert process.returncode == (0 if validates else STOPPED), process.returncode
    run.stopped_s = 0.0 if validates else time.monotonic() - asked
    run.seeds_per_s, run.edges_per_s = map(statistics.median, zip(*speeds[WARM_UP:STEPS], strict=True))
    return run


def forget(folder: Path) -> None:
    """Take the files below a folder out of the system's cache."""
    for path in folder.rglob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def report(runs: Sequence[Run]) -> None:
    state = 3 * 4 * SIZE * (NUM_USERS + NUM_ITEMS)
    print(f"embedding rows and moments: {state / 1e9:.2f} GB")
    for run in runs:
        print(f"{run.interactions:,} interactions: {run.seeds_per_s:,.0f} seeds/s of", end=" ")
        print(
            f"{run.edges_per_s / run.seeds_per_s:.0f} edges each, {run.edges_per_s:,.0f} edges/s, first step after",
            end=" ",
        )
        print(f"{run.first_step_s:.1f} s (bar {FIRST_STEP_BAR_S:.0f} s), stopped {run.stopped_s:.1f} s after SIGTERM")
        for phase, own in run.own.items():
            print(f"  {phase}: {own / 1e9:.2f} GB, {(own - state) / 1e9:+.2f} GB beside the state", end="")
            print(f" (bar {MEMORY_BAR / 1e9:.0f}), pages of files {run.files[phase] / 1e9:.2f} GB")
    share = runs[-1].seeds_per_s / runs[0].seeds_per_s
    of_edges = runs[-1].edges_per_s / runs[0].edges_per_s
    print(f"of the last size over those of the first: seeds/s {share:.2f} (bar {SPEED_BAR}), edges/s {of_edges:.2f}")


def main() -> None:
    parser = new_parser(__doc__, repeats=1, on_graph=False)
    parser.add_argument("--folder", type=Path, help="where graphs and runs go; default: a temporary folder")
    parser.add_argument("--interactions", type=int, nargs="*", default=SIZES)
    parser.add_argument("--validate", action="store_true", help="not only train; takes minutes")
    parser.add_argument("--cold", action="store_true", help="begin without the graph in the system's cache of files")
    parser.add_argument("--keep", action="store_true", help="leave the graphs there for another time")
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="dist-gat-benchmark-"))
    runs = []
    for interactions in arguments.interactions:
        prepared, folder = root / f"graph-{interactions}", root / "run"
        try:
            if not prepared.exists():
                write_large_graph(prepared, NUM_USERS, NUM_ITEMS, interactions, NUM_PARTS)
            if arguments.cold:
                forget(prepared)
            runs.append(train(prepared, folder, interactions, arguments.validate))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not arguments.keep:
                shutil.rmtree(prepared, ignore_errors=True)
    report(runs)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
