"""Workers of one machine: speed, memory a rank, and the time to the first step: `python -m benchmarks.scaling`.

The whole training step on the standard graph with local workers of one thread each: seeds a second of 2 workers
against 1, in turn, each worker with all its threads (also those that sample ahead) on a core of its own, since
otherwise the single one would use both cores. Once with as many seeds for each worker, as a script with
DistributedDataParallel has them, and once with as many in the whole step, where two workers have half of them each.
The embedding rows, optimiser rows and graph bytes of a rank at 1, 2 and 4 parts and as many workers. The seconds from
the launcher's call to the first update, with the local launcher and with Ray.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import torch

from benchmarks import harness
from benchmarks.graph import hashed_graph
from benchmarks.harness import OURS, Line
from dist_gat.config import Config
from dist_gat.config_file import parse_config
from dist_gat.exchange.worker import Worker
from dist_gat.graph.part import PreparedGraph
from dist_gat.launcher.launch import run_job
from dist_gat.launcher.local import run_processes
from dist_gat.sampling.loader import StepRange
from dist_gat.train.trainer import Trainer

WARM_UP, STEPS = 5, 25
SEEDS = 4096
WORKERS_BAR, MEMORY_BAR = 1.8, 0.9
START_BARS = {"local": 3.0, "ray": 25.0}


def recipe(
    prepared: PreparedGraph, run: str, num_workers: int, launcher: str = "local", num_seeds: int = SEEDS
) -> Config:
    return parse_config(
        {
            "name": "scaling",
            "run": run,
            "data": {"interactions": "none", "prepared": str(prepared.folder)},
            "parts": {"num_parts": prepared.ranges.num_parts},
            "sampling": {"fanouts": [10, 10]},
            "model": {"embedding_size": 64, "scoring": "additive", "num_heads": 4},
            "train": {"batch_size": num_seeds, "num_epochs": 1, "patience": 0},
            "launch": {"launcher": launcher, "num_workers": num_workers, "threads_per_worker": 1},
        }
    )


def stay_on_core(number: int) -> None:
    """Keep the threads of this process on one core, those that there are and those to come."""
    core = sorted(os.sched_getaffinity(0))[number]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def steps_per_second(config: Config, worker: Worker) -> dict[str, Any]:
    stay_on_core(worker.rank)
    trainer = Trainer(config, worker)
    for number, batch in enumerate(trainer.batches(StepRange(0, 0, WARM_UP + STEPS))):
        if number == WARM_UP:
            worker.control.barrier()
            started = time.perf_counter()
        trainer.train_step(batch, at_end=False)
    worker.control.barrier()
    trainer.log.close()
    return {"value": STEPS / (time.perf_counter() - started)}


def rank_bytes(config: Config, worker: Worker) -> dict[str, Any]:
    """Bytes that the largest rank holds: weights with two moments, and the arrays of its parts."""
    trainer = Trainer(config, worker)
    trainer.log.close()
    folders = [trainer.store.prepared.parts[part].folder for part in trainer.store.own_parts]
    graph = sum(path.stat().st_size for folder in folders for path in folder.rglob("*.npy"))
    table = 3 * trainer.model.table.weight.numel() * trainer.model.table.weight.element_size()
    held = torch.zeros(worker.world_size, dtype=torch.float64)
    held[worker.rank] = graph + table
    return {"value": float(worker.control.sum(held).max())}


def first_step(config: Config, worker: Worker) -> dict[str, Any]:
    """The wall clock after the first update."""
    trainer = Trainer(config, worker)
    for batch in trainer.batches(StepRange(0, 0, 1)):
        trainer.train_step(batch, at_end=False)
    trainer.log.close()
    return {"value": time.time()}


def value(job: Any, config: Config) -> float:
    return float(run_job(job, config, quiet=True)["value"])


def main() -> None:
    arguments = harness.new_parser(__doc__, repeats=5).parse_args()
    results: list[Line] = []
    with hashed_graph(arguments.nodes, arguments.interactions) as (prepared, run):
        # seconds a seed
        alone, per_worker, per_step = ([] for _ in range(3))
        for _ in range(arguments.repeats):
            for values, count, num_seeds in (
                (alone, 1, SEEDS), (per_worker, 2, 2 * SEEDS), (per_step, 2, SEEDS),
            ):  # fmt: skip
                config = recipe(prepared, run, count, num_seeds=num_seeds)
                # never in this process, which would stay on one core
                values.append(1 / num_seeds / float(run_processes(steps_per_second, config)["value"]))
        for what, values in (("as many seeds a worker", per_worker), ("as many seeds a step", per_step)):
            print(
                f"1 worker {1 / statistics.median(alone):,.0f}, 2 {1 / statistics.median(values):,.0f} seeds/s, {what}"
            )
            seconds = {OURS: values, "1 worker": alone}
            results += harness.compare(f"2 workers against 1, {what}", seconds, WORKERS_BAR, None)
        held = {count: value(rank_bytes, recipe(prepared, run, count)) for count in (1, 2, 4)}
        print({f"{count} ranks": f"{size / 1e6:,.0f} MB a rank" for count, size in held.items()})
        for count in (2, 4):
            share = held[1] / held[count] / count
            line = f"memory a rank, {count} ranks against 1, of the ideal"
            results.append(Line(line, "1 worker", share, MEMORY_BAR, None, (share, share)))
        for launcher, bar in START_BARS.items():
            config = recipe(prepared, run, 2, launcher)
            took = []
            for _ in range(arguments.repeats):
                started = time.time()
                took.append(value(first_step, config) - started)
            print(f"{launcher}: first step after {statistics.median(took):.1f} s (bar: at most {bar:.0f} s)")
            share = bar / statistics.median(took)
            results.append(Line(f"start to first step, {launcher}", f"{bar:.0f} s", share, 1.0, None, (share, share)))
    harness.report(results, arguments.json)


if __name__ == "__main__":
    main()
