"""`prepare` of tables of any size: `python -m benchmarks.large_tables [--interactions N …] [--ids uuid] [key=value …]`.

A table is a log in Parquet: user, item and seconds, in the order of time, 80 events a user and 400 an item on average,
both by power laws, with the pairs that occur again by chance. IDs are int64, or UUIDs as text. Each size is prepared by
the command in a process of its own; memory is the peak of what all its processes have of their own, anonymous and
shared (`Pss_Anon` and `Pss_Shmem`), looked at ten times a second. Seconds are those of the command, with its start.

With `--repeats` the sizes take turns. `--cluster ADDRESS` prepares each once more as two Ray tasks at a time, on a
cluster that `ray start --head --num-cpus 2` has started here. The disk that a size needs beside its table is shown too.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.graph import ITEM_EXPONENT, USER_EXPONENT
from benchmarks.harness import memory_of, new_parser

SIZES = (10_000_000, 50_000_000, 200_000_000)
EVENTS_A_USER, EVENTS_AN_ITEM = 80, 400
FIRST_SECOND, LAST_SECOND = 1_500_000_000, 1_700_000_000
CHUNK = 1_000_000
LOOK_EVERY_S = 0.1


@dataclass
class Run:
    """One `prepare`. Peaks in bytes."""

    interactions: int
    ids: str
    how: str
    seconds: float
    memory: int
    disk: int
    edge_cut: float


def write_table(path: Path, interactions: int, ids: str, seed: int = 0) -> None:
    """In row groups of a million; memory is the IDs of users and items."""
    rng = np.random.default_rng(seed)
    sides = {
        "user_id": (interactions // EVENTS_A_USER, USER_EXPONENT),
        "item_id": (interactions // EVENTS_AN_ITEM, ITEM_EXPONENT),
    }
    names, running = {}, {}
    for side, (count, exponent) in sides.items():
        running[side] = np.cumsum(np.arange(1, count + 1) ** -exponent)
        # a popular one may have any ID
        numbers = rng.permutation(count)
        names[side] = pa.array(numbers if ids == "int" else [str(uuid.UUID(int=int(n) << 64 | 7)) for n in numbers])
    kind = names["user_id"].type
    schema = pa.schema([("user_id", kind), ("item_id", kind), ("timestamp", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, interactions, CHUNK):
            size = min(CHUNK, interactions - start)
            columns = []
            for side, total in running.items():
                columns.append(names[side].take(pa.array(np.searchsorted(total, rng.random(size) * total[-1]))))
            at = (start + np.sort(rng.random(size)) * size) / interactions
            seconds = FIRST_SECOND + (at * (LAST_SECOND - FIRST_SECOND)).astype(np.int64)
            writer.write_table(pa.table([*columns, pa.array(seconds)], schema=schema))


def prepare(table: Path, interactions: int, ids: str, settings: list[str]) -> Run:
    """Run the command, and watch it."""
    folder = table.parent / "prepared"
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(
        f"name: large\ndata:\n  path: {json.dumps(str(table.parent))}\n  interactions: {table.name}\n"
        f"  prepared: {json.dumps(str(folder))}\n  split: {{method: random, valid_ratio: 0.02, test_ratio: 0}}\n"
        "parts: {num_parts: 4, method: range}\n"
    )
    command = [sys.executable, "-m", "dist_gat.cli.main", "prepare", str(recipe), "--json", *settings]
    memory = disk = 0
    started = time.monotonic()
    with (folder.with_suffix(".json")).open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(LOOK_EVERY_S)
            memory = max(memory, memory_of(process.pid, ("Pss_Anon", "Pss_Shmem")))
            disk = max(disk, size_of(table.parent) - table.stat().st_size)
        seconds = time.monotonic() - started
        output.seek(0)
        report = json.loads(output.read())
    assert process.returncode == 0, report
    shutil.rmtree(folder)
    return Run(interactions, ids, " ".join(settings), seconds, memory, disk, report["partition"]["edge_cut"])


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # gone since it was listed
            continue
    return total


def print_run(run: Run) -> None:
    print(
        f"{run.interactions:>13,} {run.ids:4} {run.seconds:7.1f} s, {run.interactions / run.seconds:9,.0f} rows/s",
        end=", ",
    )
    print(
        f"{run.memory / 1e9:.2f} GB, disk {run.disk / 1e9:.1f} GB, edge cut {run.edge_cut:.3f}  {run.how}", flush=True
    )


def main() -> None:
    parser = new_parser(__doc__, repeats=1, on_graph=False)
    parser.add_argument("--folder", type=Path, help="where tables and parts go; default: a temporary folder")
    parser.add_argument("--interactions", type=int, nargs="*", default=SIZES)
    parser.add_argument("--ids", nargs="*", choices=("int", "uuid"), default=("int",))
    parser.add_argument("--cluster", help="address of a Ray cluster here: each size once more as tasks on it")
    parser.add_argument("--keep", action="store_true", help="leave the tables there for another time")
    parser.add_argument("--set", nargs="*", default=["data.memory_gb=3"], help="settings of the recipe as key=value")
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="dist-gat-benchmark-"))
    ways = [arguments.set]
    if arguments.cluster:
        on_cluster = ["launch.launcher=ray", f"launch.address={arguments.cluster}", "launch.num_workers=2"]
        ways.append([*arguments.set, *on_cluster])
    runs: list[Run] = []
    for repeat in range(arguments.repeats):
        for interactions in arguments.interactions:
            for ids in arguments.ids:
                folder = root / f"table-{interactions}-{ids}"
                table = folder / "events.parquet"
                if not table.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    write_table(table, interactions, ids)
                for settings in ways:
                    runs.append(prepare(table, interactions, ids, settings))
                    print_run(runs[-1])
                if not arguments.keep and repeat == arguments.repeats - 1:
                    shutil.rmtree(folder)
    if arguments.repeats > 1:
        print("medians:")
        for key in dict.fromkeys((run.interactions, run.ids, run.how) for run in runs):
            own = [run for run in runs if (run.interactions, run.ids, run.how) == key]
            middle = [
                statistics.median(getattr(run, name) for run in own)
                for name in ("seconds", "memory", "disk", "edge_cut")
            ]
            print_run(Run(*key, *middle))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
